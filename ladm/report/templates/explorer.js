"use strict";
// The explorer of the page: reads the JSON beside it, and writes text only through textContent.
(() => {
  const data = JSON.parse(document.getElementById("x-data").textContent);
  const at = (id) => document.getElementById(id);
  const { columns, domains, subset } = data;
  const documents = data.documents.map(([rank, tokens, domain, random, id, meta, text, values, source, name, taken]) => (
    { rank, tokens, domain, random, id, meta, text, values, source, name: name || id, taken, words: `${id}\n${source}\n${meta}\n${text}\n${domains[domain]}`.toLowerCase() }));
  // Lengths that are all the same are no second axis.
  const isSpread = ({ documents: counts }) => counts[0].filter((_, b) => counts.some((of) => of[b])).length > 1;
  // The column that the subset was ranked by, and the one that it is a cut of: with guards it is a cut of none.
  const byColumn = subset ? columns.findIndex((column) => column.name === subset.by) : -1, cutColumn = subset?.cut ? byColumn : -1;
  const state = { column: Math.max(byColumn, 0), domain: -1, search: "", mode: subset ? "subset" : "value",
    cuts: new Map(), share: 20, group: "top", order: "down", across: 0, upwards: Math.max(0, columns.findIndex((column, k) => k && isSpread(column))), shown: 25 };
  const PAGE = 25, ENDS = 50, SVG = "http://www.w3.org/2000/svg";

  const make = (name, attributes = {}, ...children) => {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  };
  const draw = (name, attributes, text) => {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== undefined) element.textContent = text;
    return element;
  };
  // Isolated, so that text from right to left does not reorder the numbers beside it.
  const bdi = (text) => make("bdi", { dir: "auto" }, text);
  // Ids are whole in the data, because they are downloaded.
  const short = (id) => (id.length > 300 ? `${id.slice(0, 299)}…` : id);
  const sum = (list) => list.reduce((a, b) => a + b, 0);
  const whole = (value) => value.toLocaleString("en-US");
  const percent = (part, all) => (all ? `${(100 * part / all).toFixed(part && part < all / 10 ? 1 : 0)} %` : "0 %");
  // The same number of decimals in a whole column, so that its numbers are aligned.
  const decimals = columns.map(({ name, edges }) => {
    if (name === "length") return 0;
    const largest = Math.max(...edges.map(Math.abs));
    return largest ? Math.min(8, Math.max(0, 3 - Math.floor(Math.log10(largest)))) : 0;
  });
  const figure = (value, k) => (value === null ? "–" : value.toLocaleString("en-US",
    { minimumFractionDigits: decimals[k], maximumFractionDigits: decimals[k] }));
  const bins = (k) => columns[k].edges.length - 1;

  // The cut of a column is a bin: what is in it or above it is taken. At first, about half of all tokens.
  function cutOf(k) {
    if (!state.cuts.has(k)) state.cuts.set(k, binOfShare(k, domains.map((_, d) => d), 0.5));
    return state.cuts.get(k);
  }
  // The lowest bin from which on no more than a share of the tokens is taken.
  function binOfShare(k, which, share) {
    const all = columns[k].tokens[0].map((_, b) => sum(which.map((d) => columns[k].tokens[d][b])));
    const most = share * sum(all);
    let b = all.length, taken = 0;
    while (b > 0 && taken + all[b - 1] <= most) taken += all[--b];
    return b;
  }
  // For each domain: where the cut is (null: nothing is taken), and what it takes, by bin and in all.
  function cuts() {
    const k = state.column, { edges } = columns[k];
    return domains.map((_, d) => {
      const [counts, tokens] = [columns[k].documents[d], columns[k].tokens[d]];
      const all = { documents: sum(counts), tokens: sum(tokens) };
      if (state.mode === "subset") {
        const value = k === cutColumn ? subset.lowest[d] : null;
        let bin = 0;
        while (bin < counts.length - 1 && edges[bin + 1] <= value) bin++;
        return { place: value === null ? null : bin + fraction(k, bin, value), value, taken: columns[k].taken[d], all,
          documents: subset.documents[d], tokens: subset.tokens[d] };
      }
      const bin = state.mode === "share" ? binOfShare(k, [d], state.share / 100) : cutOf(k);
      const value = bin === 0 ? -Infinity : bin === counts.length ? null : edges[bin];
      return { place: bin, value, taken: counts.map((count, b) => (b >= bin ? count : 0)), all, documents: sum(counts.slice(bin)), tokens: sum(tokens.slice(bin)) };
    });
  }
  const onAxis = (k, value) => (columns[k].log ? Math.log(value) : value);
  function fraction(k, bin, value) {
    const [low, high] = [columns[k].edges[bin], columns[k].edges[bin + 1]].map((x) => onAxis(k, x));
    return Math.min(1, Math.max(0, (onAxis(k, value) - low) / (high - low)));
  }
  const isTaken = (found, cut) => {
    if (state.mode === "subset") return found.taken === 1;
    const value = found.values[state.column];
    return value !== null && cut[found.domain].value !== null && value >= cut[found.domain].value;
  };

  // Bars whose taken part is filled and whose outline is hollow, with the cut as a line where there is one.
  function histogram(svg, counts, taken, place, height) {
    const width = 600, step = Math.ceil(counts.length / 60), x = (b) => Math.min(width, b * width / counts.length);
    const bars = [];
    for (let b = 0; b < counts.length; b += step) bars.push([sum(counts.slice(b, b + step)), sum(taken.slice(b, b + step)), x(b), x(b + step)]);
    const most = Math.max(...bars.map(([count]) => count), 1);
    // A single document among thousands still has a visible bar.
    const top = (count) => (count ? Math.min(height - 2, height * (1 - count / most)) : height).toFixed(1);
    const outline = bars.map(([count, , , right]) => `V${top(count)}H${right.toFixed(1)}`).join("");
    const filled = bars.filter((bar) => bar[1]).map(([, part, left, right]) => `M${left.toFixed(1)} ${height}V${top(part)}H${right.toFixed(1)}V${height}Z`);
    const parts = [draw("path", { class: "is", d: filled.join("") }), draw("path", { class: "not", d: `M0 ${height}${outline}V${height}Z` })];
    if (place !== null) parts.push(draw("line", { class: "cut", x1: x(place), x2: x(place), y1: 0, y2: height }));
    svg.replaceChildren(...parts);
  }

  function showCut(cut) {
    const k = state.column, column = columns[k], shown = domains.map((_, d) => d).filter((d) => state.domain < 0 || d === state.domain);
    const total = { documents: sum(shown.map((d) => cut[d].documents)), tokens: sum(shown.map((d) => cut[d].tokens)) };
    const all = { documents: sum(shown.map((d) => cut[d].all.documents)), tokens: sum(shown.map((d) => cut[d].all.tokens)) };
    const text = `Takes ${whole(total.documents)} of ${whole(all.documents)} documents (${percent(total.documents, all.documents)}) and `
      + `${whole(total.tokens)} of ${whole(all.tokens)} tokens (${percent(total.tokens, all.tokens)}).`;
    at("x-total").textContent = text + (column.without ? ` ${whole(column.without)} documents have no ${column.name}.` : "");
    const slider = at("x-cut"), isShare = state.mode === "share", one = state.mode === "value" || shown.length === 1;
    // Of a subset with guards, or in another column than its own, no value separates what was taken.
    const hasCut = state.mode !== "subset" || k === cutColumn;
    slider.hidden = state.mode === "subset";
    slider.max = isShare ? 100 : bins(k);
    slider.value = isShare ? state.share : cutOf(k);
    const where = !isShare ? cutWords(k, cut[shown[0]].value) : `${state.share} % of ${domains.length > 1 ? "each domain" : "the tokens"}`;
    slider.setAttribute("aria-valuetext", `${where}: ${whole(total.documents)} documents, ${whole(total.tokens)} tokens`);
    at("x-cut-title").textContent = state.mode !== "subset" ? `Cut: ${where}` : k === cutColumn ? "Cut of the subset" : "The subset as selected";
    const overall = (of) => column.documents[0].map((_, b) => sum(shown.map((d) => of(d)[b])));
    histogram(at("x-all"), overall((d) => column.documents[d]), overall((d) => cut[d].taken), one ? cut[shown[0]].place : null, 90);
    at("x-all").setAttribute("aria-label", `Documents by ${column.name}${one && hasCut ? `, cut at ${cutWords(k, cut[shown[0]].value)}` : ""}`);
    at("x-low").textContent = figure(column.edges[0], k);
    at("x-middle").textContent = column.name + (column.log ? " (logarithmic)" : "");
    at("x-high").textContent = figure(column.edges[bins(k)], k);
    const value = cut[0].value, by = column.name === "score" ? "" : ` --by ${column.by ?? column.name}`;
    // A command selects from all domains, and by one that is not the subset's own.
    at("x-command-line").hidden = state.mode === "subset" || state.domain >= 0 || (state.mode === "value" && !Number.isFinite(value ?? NaN)) || (isShare && !state.share);
    at("x-command").textContent = `ladm select ${data.run}${by} ` + (isShare ? `--tokens ${state.share}%` : `--min-score ${value}`)
      + " --output subset";
    at("x-command-words").textContent = isShare ? `This command takes the best${domains.length > 1 ? " of each domain" : ""}, up to this share of all tokens:` : "This command takes them:";
    at("x-caption").textContent = `${column.name} by domain: filled is taken, hollow is not, and each histogram has its own scale`;
    at("x-domains").replaceChildren(...shown.map((d) => {
      const svg = draw("svg", { class: "histogram", viewBox: "0 0 600 34", preserveAspectRatio: "none", role: "img",
        "aria-label": `${domains[d]}: ${hasCut ? `cut at ${cutWords(k, cut[d].value)}` : `${whole(cut[d].documents)} taken`}` });
      histogram(svg, column.documents[d], cut[d].taken, cut[d].place, 34);
      const cell = (part, whole_) => make("td", { class: "n" }, whole(part), make("small", {}, `of ${whole(whole_)}`));
      return make("tr", {}, make("th", { scope: "row" }, bdi(domains[d]), svg),
        cell(cut[d].documents, cut[d].all.documents), cell(cut[d].tokens, cut[d].all.tokens));
    }));
  }
  const cutWords = (k, value) => (value === null ? "nothing" : value === -Infinity ? "everything" : `${columns[k].name} ≥ ${figure(value, k)}`);

  const matching = () => documents.filter((found) => (state.domain < 0 || found.domain === state.domain)
    && (!state.search || found.words.includes(state.search)));
  // Documents without a value of the column come last in either order.
  const sorted = (list, order) => {
    const k = state.column, sign = order === "up" ? 1 : -1;
    return [...list].sort((a, b) => (a.values[k] === null) - (b.values[k] === null) || sign * (a.values[k] - b.values[k]) || a.rank - b.rank);
  };
  function listed(cut) {
    const found = matching(), order = state.order;
    const valued = found.filter((one) => one.values[state.column] !== null);
    if (state.group === "all") return sorted(found, order);
    if (state.group === "taken" || state.group === "left") return sorted(found.filter((one) => (one.taken === 1) === (state.group === "taken")), order);
    if (state.group === "random") return sorted(found.filter((one) => one.random), order);
    if (state.group === "top") return sorted(sorted(valued, "down").slice(0, ENDS), order);
    if (state.group === "bottom") return sorted(sorted(valued, "up").slice(0, ENDS), order);
    const pools = state.mode === "value" ? [valued] : domains.map((_, d) => valued.filter((one) => one.domain === d));
    const each = Math.max(2, Math.floor(PAGE / pools.filter((pool) => pool.length).length));
    return sorted(pools.flatMap((pool) => {
      const ranked = sorted(pool, "down"), k = ranked.map((one) => isTaken(one, cut)).lastIndexOf(true) + 1;
      return ranked.slice(Math.max(0, k - each), k + each);
    }), order);
  }
  function entry(found, cut) {
    const k = state.column, taken = isTaken(found, cut), first = found.text.split("\n", 1)[0];
    const value = figure(found.values[k], k);
    const number = (text) => make("span", { class: "n" }, text);
    const summary = make("summary", { class: "entry", "aria-label": `rank ${whole(found.rank)}, ${columns[k].name} ${value}, ${whole(found.tokens)} tokens, `
      + `${domains[found.domain]}, ${short(found.name)}, ${taken ? "taken" : "not taken"}` },
    make("span", { class: taken ? "mark on" : "mark" }), number(whole(found.rank)), number(value), number(whole(found.tokens)),
    make("span", {}, ...(domains.length > 1 ? [bdi(domains[found.domain]), " · "] : []), bdi(short(found.name)), make("span", { class: "first" }, bdi(first))));
    const details = make("details", {}, summary);
    // Filled when it is opened: hundreds of texts are not in the page until somebody wants one.
    details.addEventListener("toggle", () => {
      if (!details.open || details.children.length > 1) return;
      const values = columns.map((column, c) => make("li", {}, `${column.name} `, make("b", {}, figure(found.values[c], c))));
      if (subset) values.push(make("li", {}, "in the subset ", make("b", {}, found.taken ? "yes" : "no")));
      const more = make("div", { class: "more" }, make("ul", { class: "values" }, ...values));
      if (found.meta) more.prepend(make("p", { class: "soft" }, bdi(found.meta)));
      if (found.source) more.prepend(make("p", { class: "soft" }, bdi(found.source)));
      if (found.text) more.prepend(make("div", { class: "lines", dir: "auto" }, found.text));
      details.append(more);
    });
    return make("li", {}, details);
  }
  let list = [];
  function showList(cut) {
    list = listed(cut);
    const random = state.group === "random" || documents.length === data.scored ? "" : " on this page";
    at("x-found").textContent = `${whole(list.length)} ${list.length === 1 ? "document" : "documents"}${random}, ${whole(Math.min(state.shown, list.length))} shown. `
      + "A filled circle is taken, a hollow one is not.";
    at("x-value").textContent = columns[state.column].name;
    at("x-list").replaceChildren(...list.slice(0, state.shown).map((found) => entry(found, cut)));
    at("x-more").hidden = list.length <= state.shown;
    at("x-download").disabled = !list.length;
  }

  // Spearman's correlation, with the mean rank for equal values.
  function ranks(values) {
    const order = values.map((_, k) => k).sort((a, b) => values[a] - values[b]), found = [];
    for (let start = 0, stop; start < order.length; start = stop) {
      for (stop = start; stop < order.length && values[order[stop]] === values[order[start]];) stop++;
      for (let k = start; k < stop; k++) found[order[k]] = (start + stop - 1) / 2;
    }
    return found;
  }
  function correlation(pairs) {
    const [x, y] = [0, 1].map((k) => ranks(pairs.map((pair) => pair[k])));
    const middle = (pairs.length - 1) / 2, product = (a, b) => sum(a.map((value, k) => (value - middle) * (b[k] - middle)));
    const spread = Math.sqrt(product(x, x) * product(y, y));
    return spread ? product(x, y) / spread : NaN;
  }
  function showScatter(cut) {
    // In pixels rather than scaled, so that the words are as large on a phone as elsewhere.
    const [a, b] = [state.across, state.upwards], left = 64, full = at("x-scatter").clientWidth || 640;
    const width = full - left - 8, height = Math.round(Math.min(320, width * 0.7));
    at("x-scatter").setAttribute("viewBox", `0 0 ${full} ${height + 34}`);
    const place = (k, value, length) => {
      const [low, high] = [columns[k].edges[0], columns[k].edges[bins(k)]].map((x) => onAxis(k, x));
      const x = columns[k].log && value <= 0 ? low : onAxis(k, value);
      return length * Math.min(1, Math.max(0, (x - low) / (high - low)));
    };
    // Only the random sample: the ends of the ranking would draw a shape that the data does not have.
    const points = matching().filter((found) => found.random && found.values[a] !== null && found.values[b] !== null);
    const parts = [draw("rect", { class: "frame", x: left, y: 10, width, height })];
    for (const end of [0, 1]) {
      parts.push(draw("text", { x: left + end * width, y: height + 28, "text-anchor": end ? "end" : "start" }, figure(columns[a].edges[end * bins(a)], a)));
      parts.push(draw("text", { x: left - 8, y: end ? 20 : 10 + height, "text-anchor": "end" }, figure(columns[b].edges[end * bins(b)], b)));
    }
    parts.push(draw("text", { x: left + width / 2, y: height + 28, "text-anchor": "middle" }, `${columns[a].name} →`));
    parts.push(draw("text", { transform: `translate(${left - 14} ${10 + height / 2}) rotate(-90)`, "text-anchor": "middle" }, `${columns[b].name} →`));
    for (const found of points) {
      const circle = draw("circle", { class: isTaken(found, cut) ? "is" : "not", r: 4,
        cx: (left + place(a, found.values[a], width)).toFixed(1), cy: (10 + height - place(b, found.values[b], height)).toFixed(1), "pointer-events": "all" });
      circle.append(draw("title", {}, `${short(found.name)} (rank ${whole(found.rank)})`));
      circle.addEventListener("click", () => open(found));
      parts.push(circle);
    }
    at("x-scatter").replaceChildren(...parts);
    const rho = points.length > 2 ? correlation(points.map((found) => [found.values[a], found.values[b]])) : NaN;
    const text = `${whole(points.length)} documents${documents.length === data.scored ? "" : " of the random sample"}`
      + (Number.isNaN(rho) ? "" : `; Spearman's correlation of ${columns[a].name} and ${columns[b].name}: ${rho.toFixed(2)}`);
    at("x-scatter").setAttribute("aria-label", text);
    at("x-scatter-text").textContent = `${text}. Filled is taken, hollow is not; click a point to open its document.`;
  }
  function open(found) {
    Object.assign(state, { group: "all", search: found.id.toLowerCase(), shown: PAGE });
    at("x-group").value = "all";
    at("x-search").value = found.id;
    show();
    const k = list.indexOf(found);
    if (k >= state.shown) {
      state.shown = k + 1;
      show();
    }
    const details = at("x-list").children[k].firstChild;
    details.open = true;
    details.scrollIntoView({ block: "center" });
    details.firstChild.focus();
  }

  function show() {
    at("x-subset").hidden = !subset;
    for (const radio of document.getElementsByName("x-mode")) radio.checked = radio.value === state.mode;
    const cut = cuts();
    showCut(cut);
    showScatter(cut);
    showList(cut);
  }
  function fill(id, names, key, isNumber = true) {
    at(id).replaceChildren(...names.map(([value, name]) => make("option", { value }, name)));
    at(id).value = state[key];
    at(id).addEventListener("change", () => {
      state[key] = isNumber ? Number(at(id).value) : at(id).value;
      state.shown = PAGE;
      show();
    });
  }
  const columnNames = columns.map((column, k) => [k, column.name]);
  for (const [id, key] of [["x-column", "column"], ["x-across", "across"], ["x-upwards", "upwards"]]) fill(id, columnNames, key);
  // With one domain its histogram would be the one above again.
  for (const id of ["x-domain-choice", "x-by-domain"]) at(id).hidden = domains.length === 1;
  fill("x-domain", [[-1, "all"], ...domains.map((name, d) => [d, name])], "domain");
  for (const [id, key] of [["x-group", "group"], ["x-order", "order"]]) {
    at(id).addEventListener("change", () => {
      state[key] = at(id).value;
      // The lowest are wanted lowest first, and the other groups highest first, until somebody says otherwise.
      if (key === "group") at("x-order").value = state.order = state.group === "bottom" ? "up" : "down";
      state.shown = PAGE;
      show();
    });
  }
  at("x-search").addEventListener("input", () => {
    state.search = at("x-search").value.toLowerCase();
    state.shown = PAGE;
    show();
  });
  for (const radio of document.getElementsByName("x-mode")) {
    radio.addEventListener("change", () => {
      state.mode = radio.value;
      show();
    });
  }
  at("x-cut").addEventListener("input", () => {
    if (state.mode === "share") state.share = Number(at("x-cut").value);
    else state.cuts.set(state.column, Number(at("x-cut").value));
    show();
  });
  // The histogram of all domains can be dragged as its slider can; a drag means one value.
  const drag = (event) => {
    if (!event.buttons) return;
    const box = at("x-all").getBoundingClientRect(), part = (event.clientX - box.left) / box.width;
    state.mode = "value";
    state.cuts.set(state.column, Math.round(bins(state.column) * Math.min(1, Math.max(0, part))));
    show();
  };
  at("x-all").addEventListener("pointerdown", (event) => {
    at("x-all").setPointerCapture(event.pointerId);
    drag(event);
  });
  at("x-all").addEventListener("pointermove", drag);
  at("x-more").addEventListener("click", () => {
    state.shown += PAGE;
    show();
  });
  at("x-download").addEventListener("click", () => {
    const address = URL.createObjectURL(new Blob(list.map((found) => `${found.id}\n`), { type: "text/plain" }));
    make("a", { href: address, download: "ids.txt" }).click();
    // Not at once: the browser may read the text after the click has returned.
    setTimeout(() => URL.revokeObjectURL(address), 60000);
  });
  window.addEventListener("resize", () => showScatter(cuts()));
  at("explorer").hidden = false;
  at("x-nav").hidden = false;
  // What the explorer shows better.
  at("x-static").hidden = true;
  show();
})();
