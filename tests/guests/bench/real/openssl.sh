# Digests, a block cipher there and back, and modular powers of large numbers.
set -e
key=000102030405060708090a0b0c0d0e0f
head -c 1500000 /bench/input/text >/tmp/text
openssl dgst -sha256 -r /tmp/text
openssl dgst -sha3-256 -r /tmp/text
openssl enc -aes-128-cbc -K $key -iv $key -in /tmp/text -out /tmp/cipher
openssl enc -d -aes-128-cbc -K $key -iv $key -in /tmp/cipher | openssl dgst -md5 -r
# 2^1279 - 1
openssl prime -hex "7$(printf '%0319d' 0 | tr 0 F)"
