"""Files and objects that name documents by their ids -> hashes of the ids, and numbers for rows."""
