-- The numbers given out so far, written in the transaction that gives them: what retention removes must not come again. Below what is still there,
-- or is still named, none may start: numbers of submissions outlive their rows in versions, in instances and in the walks of retention.
CREATE TABLE counter(name TEXT PRIMARY KEY, given INT NOT NULL) WITHOUT ROWID;
INSERT INTO counter SELECT 'rid', max(n) FROM (
  SELECT 0 AS n UNION ALL SELECT max(rid) FROM head UNION ALL SELECT max(rid) FROM version);
INSERT INTO counter SELECT 'vid', max(n) FROM (
  SELECT 0 AS n UNION ALL SELECT max(vid) FROM version UNION ALL SELECT max(vid) FROM head UNION ALL SELECT max(cursor_vid) FROM destination
  UNION ALL SELECT max(vid) FROM delivery UNION ALL SELECT v FROM meta WHERE k='retained_versions');
INSERT INTO counter SELECT 'seq', max(n) FROM (
  SELECT 0 AS n UNION ALL SELECT max(seq) FROM submission UNION ALL SELECT max(sub) FROM version UNION ALL SELECT max(seq) FROM dedupe
  UNION ALL SELECT max(sub) FROM instance UNION ALL SELECT max(superseded) FROM instance UNION ALL SELECT max(seq) FROM quarantine
  UNION ALL SELECT v FROM meta WHERE k IN ('retained_originals','retained_submissions'));
