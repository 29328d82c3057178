# A data base in a file: insert, index, join, group, update.
sqlite3 -batch /tmp/data.db </bench/input/sqlite.sql
