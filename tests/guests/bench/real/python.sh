# Objects, dictionaries, strings, generators, big numbers, regular expressions.
PYTHONHASHSEED=0 python3 -B /bench/input/python.py
