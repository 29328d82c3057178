# Pack and unpack. Without times and threads the archive is the same everywhere.
set -e
head -c 500000 /bench/input/text >/tmp/text
7z a -mx=5 -mmt=1 -mtm- -mtc- -mta- -bd -bso0 -bsp0 /tmp/text.7z /tmp/text
7z x -so -bd -bsp0 /tmp/text.7z
cat /tmp/text.7z
