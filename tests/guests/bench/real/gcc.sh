# Preprocess, compile, assemble and link.
set -e
cp /bench/input/source/* /tmp
cd /tmp
gcc-14 -O2 -fPIC -shared -o program.so fp.c -lm
cat program.so
