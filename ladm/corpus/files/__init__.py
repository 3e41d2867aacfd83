"""Names of files, folders and data sets -> their bytes, tables and columns, checked."""
