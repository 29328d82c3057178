import re


class Shape:
    def __init__(self, side):
        self.side = side

    def area(self):
        return 0


class Square(Shape):
    def area(self):
        return self.side * self.side


class Triangle(Shape):
    def area(self):
        return self.side * self.side / 2


def queens(size, row=0, columns=0, left=0, right=0):
    if row == size:
        return 1
    found, free = 0, ((1 << size) - 1) & ~(columns | left | right)
    while free:
        bit = free & -free
        free ^= bit
        found += queens(size, row + 1, columns | bit, (left | bit) << 1, (right | bit) >> 1)
    return found


def primes(limit):
    marks = bytearray([1]) * limit
    for number in range(2, limit):
        if marks[number]:
            yield number
            marks[number * number::number] = bytes(len(range(number * number, limit, number)))


with open("/bench/input/text", encoding="ascii") as file:
    words = file.read(150000).split()
counts = {}
for word in words:
    counts[word] = counts.get(word, 0) + 1
print(sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:10])
shapes = [(Square if i % 3 else Triangle)(i) for i in range(10000)]
print(sum(shape.area() for shape in shapes))
print(queens(6), sum(primes(30000)))
print(len(re.findall(r"\b[a-m]+(?:st|er)\w*", " ".join(words))))
print(pow(3, 20000) % 1000000007, len(str(2 ** 8000)))
