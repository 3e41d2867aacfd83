"""Equation 1: the two rules by hand and by property, the manifest, and `ladm select` with its error messages."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st

from ladm.errors import LadmError, StorageError, UsageError
from ladm.runs.lines import decode_object
from ladm.selection import budget as selection
from ladm.selection.budget import Domains, DomainSelection, round_quotas, select_exact, select_percent
from ladm.selection.formats.destination import LocalFolder
from ladm.selection.manifest_file import read_manifest
from ladm.settings.quantities import parse_tokens
from support.domains import pool, taken
from support.files import read_lines, read_object
from support.paths import GOLDEN
from support.rows import topical_rows


def token_shares(domains: Domains) -> dict[str, int]:
    return {name: domain.pool_tokens for name, domain in domains.items()}


documents = st.lists(
    st.tuples(st.sampled_from("abcd"), st.integers(0, 6).map(float), st.integers(1, 40)), min_size=1, max_size=40
)


@given(documents=documents, percent=st.integers(1, 100), by=st.sampled_from(["tokens", "documents"]))
def test_exact_never_exceeds_the_budget_and_falls_short_by_less_than_the_shortest_rest(
    documents: list[Any], percent: int, by: str
) -> None:
    domains = pool(*documents)
    total = sum(tokens for _, _, tokens in documents)
    budget = max(1, total * percent // 100)
    shares = token_shares(domains) if by == "tokens" else {n: len(d) for n, d in domains.items()}
    select_exact(domains, budget_tokens=budget, shares=shares)
    spent = sum(domain.taken_tokens for domain in domains.values())
    chosen = {position for positions in taken(domains).values() for position in positions}
    left = [tokens for k, (_, _, tokens) in enumerate(documents) if k not in chosen]
    assert spent <= budget
    assert budget - spent < min(left, default=budget + 1)
    assert spent == sum(tokens for k, (_, _, tokens) in enumerate(documents) if k in chosen)
    assert len(chosen) == sum(domain.taken_documents for domain in domains.values())
    for domain in domains.values():
        assert domain.num_tokens[: domain.prefix].sum() <= (domain.quota_tokens or 0)
        if domain.prefix < len(domain):
            assert domain.num_tokens[: domain.prefix + 1].sum() > (domain.quota_tokens or 0)
        scores = [documents[k][1] for k in domain.taken_positions]
        assert domain.lowest_score_taken == min(scores, default=None)
    assert sum(domain.quota_tokens or 0 for domain in domains.values()) == budget
    again = pool(*documents)
    select_exact(again, budget_tokens=budget, shares=shares)
    assert taken(again) == taken(domains)


@given(documents=documents, percent=st.integers(1, 100))
def test_exact_agrees_with_a_plain_transcription(documents: list[Any], percent: int) -> None:
    domains = pool(*documents)
    budget = max(1, sum(tokens for _, _, tokens in documents) * percent // 100)
    select_exact(domains, budget_tokens=budget, shares=token_shares(domains))
    quotas = round_quotas(budget, token_shares(domains))
    ranked = {
        name: sorted((k for k, d in enumerate(documents) if d[0] == name), key=lambda k: (-documents[k][1], k))
        for name in quotas
    }
    plain: dict[str, list[int]] = {name: [] for name in quotas}

    def tokens_of(rows: list[int]) -> int:
        return sum(documents[k][2] for k in rows)

    for name, rows in ranked.items():
        for k in rows:
            if tokens_of([*plain[name], k]) > quotas[name]:
                break
            plain[name].append(k)
    while True:
        left = budget - sum(map(tokens_of, plain.values()))
        fitting = {}
        for name, rows in ranked.items():
            others = [k for k in rows if k not in plain[name] and documents[k][2] <= left]
            if others:
                fitting[name] = others[0]
        if not fitting:
            break
        name = min(fitting, key=lambda n: (tokens_of(plain[n]) - quotas[n], n))
        plain[name].append(fitting[name])
    assert taken(domains) == plain


@given(
    tokens=st.lists(st.integers(1, 9), min_size=1, max_size=200),
    start=st.integers(0, 200),
    most=st.integers(0, 9),
    chunk=st.sampled_from([1, 20, 65_536]),
)
def test_next_fitting_finds_the_first_that_fits(tokens: list[int], start: int, most: int, chunk: int) -> None:
    domain = DomainSelection(
        positions=np.arange(len(tokens)), num_tokens=np.array(tokens), scores=np.zeros(len(tokens))
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection, "BATCH_DOCUMENTS", chunk)
        found = domain.next_fitting(start, most)
    assert found == next((k for k in range(start, len(tokens)) if tokens[k] <= most), len(tokens))


def test_exact_by_hand() -> None:
    """Shares 60:40 of 50 tokens. a takes 10 + 15 and stops at 20 > 30; b takes 8 + 9, stops at 23 > 20.
    Left: 50 - 42 = 8. a is 5 behind, b 3; a's best that fits is its 5, then b's 3."""
    domains = pool(
        ("a", 9, 10), ("a", 8, 15), ("a", 7, 20), ("a", 6, 5), ("a", 5, 10),
        ("b", 9, 8), ("b", 8, 9), ("b", 7, 20), ("b", 6, 3),
    )  # fmt: skip
    assert token_shares(domains) == {"a": 60, "b": 40}
    select_exact(domains, budget_tokens=50, shares=token_shares(domains))
    assert {name: domain.quota_tokens for name, domain in domains.items()} == {"a": 30, "b": 20}
    assert taken(domains) == {"a": [0, 1, 3], "b": [5, 6, 8]}
    assert {name: domain.prefix for name, domain in domains.items()} == {"a": 2, "b": 2}


def test_percent_by_hand() -> None:
    """a has 5 documents, b 2, of 10 tokens each. 20 %: 1 + 0; 40 %: 2 + 0; 50 %: 2 + 1 = 30 tokens."""
    documents = [("a", float(k), 10) for k in range(5)] + [("b", float(k), 10) for k in range(2)]
    domains = pool(*documents)
    assert select_percent(domains, budget_tokens=29, allow_small_pool=False) == 50
    assert taken(domains) == {"a": [4, 3], "b": [6]}
    assert select_percent(domains, budget_tokens=30, allow_small_pool=False) == 60
    assert taken(domains) == {"a": [4, 3, 2], "b": [6]}
    assert select_percent(domains, budget_tokens=70, allow_small_pool=False) == 100


def test_largest_remainder() -> None:
    assert round_quotas(10, {"a": 1, "b": 1, "c": 1}) == {"a": 4, "b": 3, "c": 3}
    assert round_quotas(100, {"a": 333, "b": 333, "c": 334}) == {"a": 33, "b": 33, "c": 34}
    assert round_quotas(7, {"a": Fraction(1, 2), "b": 0}) == {"a": 7, "b": 0}


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("1B", 10**9), ("500M", 5 * 10**8), ("250k", 250_000), ("1.5b", 1_500_000_000), ("1_000", 1000), ("64,000", 64000),
     ("1073741824", 2**30), ("1.5e9", 1_500_000_000), ("2T", 2 * 10**12)],
)  # fmt: skip
def test_token_counts(text: str, tokens: int) -> None:
    assert parse_tokens(text) == tokens


@pytest.mark.parametrize("text", ["", "B", "many", "1G", "1KB", "0", "-5", "0.5", "nan", "1/0", "1e400", "1e999999999"])
def test_invalid_token_counts(text: str) -> None:
    with pytest.raises(UsageError, match=r"^'.*' (is not a number|must be a whole number)"):
        parse_tokens(text)


Command = Callable[..., Result]


@pytest.fixture
def scored(score_once: Any, save_rows: Any, golden: Any, tmp_path: Path) -> tuple[str, Path]:
    rows = topical_rows(golden, [512, 400, 450, 512, 700, 480, 512, 490])
    rows[3]["input_ids"] = rows[3]["input_ids"][:90]
    folder = save_rows(rows)
    return folder, score_once(folder, output=tmp_path / "run")


def test_the_subset_and_its_manifest(ladm: Command, scored: tuple[str, Path], tmp_path: Path) -> None:
    from datasets import load_from_disk

    rows, run = scored
    result = ladm("select", run, "--rows", rows, "--tokens", "2k", "--output", tmp_path / "subset")
    assert result.exit_code == 0, result.output
    subset = load_from_disk(str(tmp_path / "subset"))["train"]
    lines = read_lines(run / "sorted_by_score.jsonl")
    even = [line for line in lines if line["index"] % 2 == 0]
    manifest = read_object(tmp_path / "subset" / "manifest.json")
    assert subset["index"] == sorted(subset["index"])
    assert subset.column_names == ["text", "meta", "input_ids", "index", "id", "domain", "score", "rank"]
    assert sum(map(len, subset["input_ids"])) == manifest["taken_tokens"] <= 2000
    assert manifest["pool_tokens"] == 512 + 400 + 450 + 700 + 480 + 512 + 490
    assert manifest["without_score"] == {"too_short": 1}
    first = manifest["domains"]["domain 0"]
    assert first["quota_tokens"] == round(2000 * 2174 / 3544)
    assert set(subset["index"]) >= {even[0]["index"]}
    chosen = set(subset["index"])
    assert first["lowest_score_taken"] == min(line["score"] for line in even if line["index"] in chosen)
    table = result.stdout.splitlines()
    assert table[0].split() == ["domain", "pool", "taken", "quota", "tokens", "taken", "tokens", "lowest", "score"]
    assert table[-2:] == [
        "not selectable without a score: 1 (too_short 1)",
        f"subset: {tmp_path / 'subset'}",
    ]
    again = ladm("select", run, "--rows", rows, "--tokens", "2000", "--output", tmp_path / "again")
    assert again.exit_code == 0
    for path in (tmp_path / "subset").rglob("*.arrow"):
        assert path.read_bytes() == (tmp_path / "again" / path.relative_to(tmp_path / "subset")).read_bytes()


def test_the_manifest_is_read_as_it_was_written(ladm: Command, scored: tuple[str, Path], tmp_path: Path) -> None:
    rows, run = scored
    for rule, quota in (("exact", "tokens"), ("percent", None)):
        subset = tmp_path / rule
        assert ladm(
            "select", run, "--rows", rows, "--tokens", "1000", "--output", subset, "--rule", rule
        ).exit_code == 0  # fmt: skip
        manifest = read_manifest(subset)
        content = read_object(subset / "manifest.json")
        whole = json.loads(json.dumps(dataclasses.asdict(manifest)))
        assert whole | content | {"domains": whole["domains"]} == whole | {"chosen": content["chosen"]}
        assert {name: whole["domains"][name] | domain for name, domain in content["domains"].items()} == whole[
            "domains"
        ]
        assert (manifest.rule, manifest.quota) == (rule, quota)
        assert manifest.domains["domain 1"].pool_documents == 3
        assert manifest.run["dtype"] == "float32"


def test_a_damaged_manifest_is_refused(ladm: Command, scored: tuple[str, Path], tmp_path: Path) -> None:
    rows, run = scored
    assert ladm("select", run, "--rows", rows, "--tokens", "1000", "--output", tmp_path / "s").exit_code == 0
    path = tmp_path / "s" / "manifest.json"
    whole = read_object(path)
    domain = whole["domains"]["domain 0"]
    for content, message in (
        (whole | {"taken_tokens": "many"}, "taken_tokens is 'many'"),
        (whole | {"pool_documents": True}, "pool_documents is True"),
        ({name: whole[name] for name in whole if name != "percent"}, "percent is missing"),
        (whole | {"domains": {"a": 1}}, "pool_documents is missing"),
        (whole | {"domains": {"a": domain | {"lowest_score_taken": "0.1"}}}, "lowest_score_taken is '0.1'"),
        (whole | {"run": None}, "run is None"),
    ):
        path.write_text(json.dumps(content))
        with pytest.raises(LadmError) as caught:
            read_manifest(path.parent)
        assert str(caught.value) == f"{path} is not a manifest of ladm select: {message}"
    for text, message in (
        ("[1]", "it does not hold a JSON object"),
        ("{", "line 1 is not JSON; restore it from a copy, or remove "),
    ):
        path.write_text(text)
        with pytest.raises(StorageError, match=re.escape(f"{path} is damaged: {message}")):
            read_manifest(path.parent)


def test_quotas_from_a_file_and_by_documents(ladm: Command, scored: tuple[str, Path], tmp_path: Path) -> None:
    rows, run = scored
    (tmp_path / "w.yaml").write_text("domain 0: 0\ndomain 1: 2.5\n")
    result = ladm(
        "select", run, "--rows", rows, "--tokens", "900", "--output", tmp_path / "s", "--quota", tmp_path / "w.yaml"
    )
    assert result.exit_code == 0, result.output
    manifest = read_object(tmp_path / "s" / "manifest.json")
    assert list(manifest["domains"]) == ["domain 1"]
    assert manifest["domains_left_out"] == ["domain 0"]
    assert "left out by weight 0: domain 0" in result.stdout
    result = ladm(
        "select",
        run,
        "--rows",
        rows,
        "--tokens",
        "700",
        "--output",
        tmp_path / "d",
        "--quota",
        "documents",
        "--dry-run",
    )
    assert result.exit_code == 0
    assert not (tmp_path / "d").exists()
    assert "400" in result.stdout.splitlines()[1]


def test_the_percent_rule_and_a_small_pool(ladm: Command, scored: tuple[str, Path], tmp_path: Path) -> None:
    rows, run = scored
    result = ladm("select", run, "--rows", rows, "--tokens", "1000", "--output", tmp_path / "p", "--rule", "percent")
    assert result.exit_code == 0
    manifest = read_object(tmp_path / "p" / "manifest.json")
    assert f"the best {manifest['percent']} % of every domain" in result.stdout
    assert manifest["taken_tokens"] > 1000
    assert manifest["percent"] == 34
    small = ("select", run, "--rows", rows, "--tokens", "1M", "--output", tmp_path / "all", "--allow-small-pool")
    assert ladm(*small).exit_code == 0
    assert read_object(tmp_path / "all" / "manifest.json")["taken_documents"] == 7
    result = ladm("select", run, "--rows", rows, "--tokens", "1M", "--output", tmp_path / "q", "--rule", "percent")
    assert result.exit_code == 1


def test_all_documents_as_one_domain(ladm: Command, scored: tuple[str, Path], tmp_path: Path) -> None:
    rows, run = scored
    ladm("select", run, "--rows", rows, "--tokens", "1000", "--output", tmp_path / "s", "--domain-key", "none")
    assert list(read_object(tmp_path / "s" / "manifest.json")["domains"]) == ["all"]


def change_last_line(run: Path, change: Callable[[dict[str, Any]], bytes]) -> None:
    path = run / "units" / "000000.jsonl"
    lines = path.read_bytes().splitlines()
    record = decode_object(lines[-1])
    assert record is not None
    path.write_bytes(b"".join(line + b"\n" for line in lines[:-1]) + change(record[0]))


def test_a_nan_in_a_sealed_unit_is_reported_and_never_sorted(ladm: Command, scored: tuple[str, Path]) -> None:
    rows, run = scored
    change_last_line(run, with_nan_score)
    unit = run / "units" / "000000.jsonl"
    position = json.loads(unit.read_text().splitlines()[-1])["position"]
    result = ladm("verify", run)
    assert result.exit_code == 74
    assert f"{unit} is damaged: row {position} has the score nan" in result.stdout
    (run / "sorted_by_score.jsonl").unlink()
    result = ladm("score", rows, "--model", GOLDEN, "--dtype", "float32", "--span-tokens", "16", "--output", run)
    remedy = "remove it, and rerun the command that made the run to score its rows again"
    assert result.exit_code == 74
    assert result.stderr.endswith(f"ladm: {unit} is damaged: row {position} has the score nan; {remedy}\n")


def with_nan_score(record: dict[str, Any]) -> bytes:
    import zlib

    body = json.dumps(record | {"score": float("nan")})[:-1].encode()
    return b'%s, "crc32": "%08x"}\n' % (body, zlib.crc32(body))


def test_error_messages_of_select(
    ladm: Command, scored: tuple[str, Path], save_rows: Any, golden: Any, tmp_path: Path
) -> None:
    rows, run = scored
    out = ("--output", tmp_path / "out")
    lengths = [512, 400, 450, 512, 700, 480, 512, 490]
    other = save_rows(topical_rows(golden, lengths), "other")
    (tmp_path / "half.yaml").write_text("domain 0: 1\n")
    (tmp_path / "minus.yaml").write_text("domain 0: -1\ndomain 1: 1\n")
    (tmp_path / "zero.yaml").write_text("domain 0: 0\ndomain 1: 0\n")
    (tmp_path / "list.yaml").write_text("[1]\n")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    t = tmp_path
    many = ",".join(f"domain{k}=2" for k in range(40))
    faults = [
        (("--rows", rows, "--tokens", "1B", *out), 1,
         "the pool has 3,544 tokens, fewer than the budget of 1,000,000,000; give a smaller --tokens, or take all of "
         "it with --allow-small-pool; 1 row left out without a score"),
        (("--rows", rows, "--tokens", "many", *out), 2,
         "--tokens 'many' is not a number of tokens such as 1B, 500M, 250k or 1073741824"),
        (("--rows", rows, "--tokens", "0.5", *out), 2, "--tokens '0.5' must be a whole number of tokens, at least 1"),
        (("--rows", other, "--tokens", "1k", *out), 1,
         f"{other} are not the rows that {run} scored: their content differs"),
        (("--rows", rows, "--tokens", "1k", "--output", t / "full"), 1,
         f"{t}/full exists already; give another --output"),
        (("--rows", rows, "--tokens", "1k", *out, "--domain-key", "meta.source"), 1,
         f"row 0 of {rows} has no meta.source; give another --domain-key, --domain a name for all rows without one, or "
         "--domain-key none to rank all documents together"),
        (("--rows", rows, "--tokens", "1k", *out, "--domain-key", "source"), 1,
         f"{rows} has no column source (it has index, input_ids, meta, text); give --domain-key the key of a domain, "
         "or none to rank all documents together"),
        (("--rows", rows, "--tokens", "1k", *out, "--quota", t / "nowhere.yaml"), 2,
         f"--quota {t}/nowhere.yaml is neither tokens, documents nor a file: No such file or directory"),
        (("--rows", rows, "--tokens", "1k", *out, "--quota", "web=2,code=1"), 2,
         "--quota web=2,code=1 is neither tokens, documents nor a file; weights are written as '{web: 2, code: 1}'"),
        (("--rows", rows, "--tokens", "1k", *out, "--quota", "web:2"), 2,
         "--quota web:2 is neither tokens, documents nor a file; weights are written as '{web: 2, code: 1}'"),
        (("--rows", rows, "--tokens", "1k", *out, "--quota", t / "lr=3" / "nowhere.yaml"), 2,
         f"--quota {t}/lr=3/nowhere.yaml is neither tokens, documents nor a file: No such file or directory"),
        (("--rows", rows, "--tokens", "1k", *out, "--quota", many), 2,
         f"--quota {many} is neither tokens, documents nor a file; weights are written as '{{web: 2, code: 1}}'"),
        (("--rows", rows, "--tokens", "1k", "--output", t / "new" / "s", "--max-per-document", "1"), 1,
         f"{rows} has no column document, so --max-per-document has nothing to count"),
        (("--rows", rows, "--tokens", "1k", *out, "--quota", t / "half.yaml"), 2,
         f"--quota {t}/half.yaml has no weight for domain 1; 0 leaves a domain out, and the name \"*\" sets the weight "
         "of all others"),
        (("--rows", rows, "--tokens", "1k", *out, "--quota", t / "minus.yaml"), 2,
         f"--quota {t}/minus.yaml: the weight of domain 0 is -1, not a number of at least 0 such as 2 or 2.0e-5"),
        (("--rows", rows, "--tokens", "1k", *out, "--quota", t / "zero.yaml"), 2,
         f"--quota {t}/zero.yaml: every weight is 0"),
        (("--rows", rows, "--tokens", "1k", *out, "--quota", t / "list.yaml"), 2,
         f"--quota {t}/list.yaml must hold a weight for every domain, such as ArXiv: 2"),
        (("--rows", rows, "--tokens", "1k", *out, "--quota", "documents", "--rule", "percent"), 2,
         "--quota cannot be combined with --rule percent: it takes the same share of every domain"),
    ]  # fmt: skip
    for arguments, code, message in faults:
        result = ladm("select", run, *arguments)
        assert (result.exit_code, result.stderr) == (code, f"ladm: {message}\n")
    assert not (tmp_path / "out").exists()
    # Found before the work: the folder around the subset is not made either.
    assert not (tmp_path / "new").exists()


def test_an_output_that_cannot_be_replaced_is_refused_before_the_ranking(
    ladm: Command, scored: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ladm.selection.subset.open_sources", lambda _: pytest.fail("the runs were opened"))
    here, mounted = tmp_path / "here", tmp_path / "mounted"
    here.mkdir()
    mounted.mkdir()
    (tmp_path / "link").symlink_to(here)
    (tmp_path / "nowhere").symlink_to(tmp_path / "absent")
    monkeypatch.chdir(here)
    monkeypatch.setattr("os.path.ismount", lambda path: Path(path) == mounted)
    reasons = {
        Path("."): ("the current folder", "a folder inside it"),
        mounted: ("a mount point", "a folder inside it"),
        tmp_path / "link": ("a symbolic link", "the folder that it points to"),
        tmp_path / "nowhere": ("a symbolic link", "the folder that it points to"),
    }
    for output, (what, remedy) in reasons.items():
        result = ladm("select", scored[1], "--rows", scored[0], "--tokens", "1k", "--output", output)
        assert (result.exit_code, result.stderr) == (
            1, f"ladm: {output} is {what}, which a finished subset cannot replace; give --output {remedy}\n"
        )  # fmt: skip
    assert list(here.iterdir()) == list(mounted.iterdir()) == []
    with pytest.raises(StorageError, match=r"^cannot use x+: File name too long$"):
        LocalFolder(Path("x" * 300)).require_free()


def test_a_damaged_unfinished_or_missing_run_is_refused(
    ladm: Command, scored: tuple[str, Path], tmp_path: Path
) -> None:
    rows, run = scored
    command = ("select", run, "--rows", rows, "--tokens", "1k", "--output", tmp_path / "out")
    parquet = run / "scores.parquet"
    whole = parquet.read_bytes()
    table = pq.read_table(parquet)
    last = table.num_rows - 1
    position = table["position"][last].as_py()
    nan = pa.array([*table["score"].to_pylist()[:last], float("nan")])
    pq.write_table(table.set_column(table.schema.get_field_index("score"), "score", nan), parquet)
    result = ladm(*command)
    assert (result.exit_code, result.stderr) == (74, f"ladm: {run} is damaged: row {position} has the score nan\n")
    parquet.write_bytes(whole)
    chunk = pq.ParquetFile(parquet).metadata.row_group(0).column(table.schema.get_field_index("score"))
    middle = chunk.data_page_offset + chunk.total_compressed_size // 2
    parquet.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    result = ladm(*command)
    assert result.exit_code == 74
    assert result.stderr.startswith(f"ladm: {parquet} is damaged: ")
    parquet.write_bytes(whole)
    (run / "sorted_by_score.jsonl").unlink()
    result = ladm(*command)
    assert (result.exit_code, result.stderr) == (
        3,
        f"ladm: {run} is not finished: sorted_by_score.jsonl missing; run the same ladm score command again\n",
    )
    (run / "run.json").unlink()
    result = ladm(*command)
    assert (result.exit_code, result.stderr) == (1, f"ladm: {run} is not a run: it has no run.json\n")


def test_a_run_without_any_score_is_reported_before_the_pool(
    ladm: Command, save_rows: Any, golden: Any, tmp_path: Path
) -> None:
    rows = save_rows([row | {"input_ids": [5000] * 50} for row in topical_rows(golden, [50])])
    ladm("score", rows, "--model", GOLDEN, "--output", tmp_path / "run")
    result = ladm("select", tmp_path / "run", "--rows", rows, "--tokens", "1k", "--output", tmp_path / "out")
    assert (result.exit_code, result.stderr) == (1, f"ladm: {tmp_path / 'run'}: no document has a score\n")


def test_a_pool_smaller_than_the_budget_is_refused() -> None:
    with pytest.raises(LadmError, match="the pool has 10 tokens, fewer than the budget of 11"):
        select_exact(pool(("a", 1, 10)), budget_tokens=11, shares={"a": 1})


@pytest.mark.parametrize("command", ["select", "inspect"])
def test_torn_rows_are_damage_not_rows_that_moved(
    score_once: Any, ladm: Command, save_rows: Any, golden: Any, tmp_path: Path, command: str
) -> None:
    rows, run = Path(save_rows(topical_rows(golden, [400] * 6))), tmp_path / "run"
    score_once(rows, output=run)
    (shard,) = rows.rglob("*.arrow")
    shard.write_bytes(shard.read_bytes()[:-200])
    words = {"select": ("--tokens", "1k", "-o", tmp_path / "subset"), "inspect": ()}[command]
    result = ladm(command, run, *words)
    assert result.exit_code == 74, result.stderr
    assert "give --rows" not in result.stderr
