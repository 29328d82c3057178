PRAGMA journal_mode = WAL;
CREATE TABLE person (id INTEGER PRIMARY KEY, name TEXT, town INTEGER, score REAL);
CREATE TABLE town (id INTEGER PRIMARY KEY, name TEXT);
BEGIN;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
INSERT INTO town SELECT i, printf('town-%x', i * 7919 % 65521) FROM n;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 8000)
INSERT INTO person SELECT i, printf('person %08x', i * 2654435761 % 4294967296), i * 31 % 500 + 1, (i * 17 % 1000) / 8.0
FROM n;
COMMIT;
CREATE INDEX by_name ON person (name);
CREATE INDEX by_town ON person (town, score);
SELECT count(*), sum(score), min(name), max(name) FROM person;
SELECT town.name, count(*), round(avg(score), 3) FROM person JOIN town ON town.id = person.town
GROUP BY town.id HAVING avg(score) > 62 ORDER BY 3 DESC, 1 LIMIT 20;
SELECT count(*) FROM person WHERE name LIKE '%ab%';
UPDATE person SET score = score * 1.5 WHERE town BETWEEN 100 AND 200;
DELETE FROM person WHERE id % 5 = 0;
SELECT a.name, b.name FROM person a JOIN person b ON b.town = a.town AND b.score = a.score AND b.id > a.id
ORDER BY a.name, b.name LIMIT 20;
SELECT hex(substr(group_concat(name, ''), 1, 32)), round(total(score), 3) FROM (SELECT * FROM person ORDER BY name);
PRAGMA integrity_check;
