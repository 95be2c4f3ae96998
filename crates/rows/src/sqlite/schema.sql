-- The database of one site. Integers are 64 bit; lm is in microseconds, other times in milliseconds since 1970.
-- Every row that a change of the schema touches is carried over by a migration in migrate.rs.
CREATE TABLE head(rid INTEGER PRIMARY KEY, rt INT NOT NULL, fid TEXT NOT NULL, ver INT NOT NULL, vid INT NOT NULL, ord INT NOT NULL,
  deleted INT NOT NULL DEFAULT 0, applied INT, successor INT);      -- applied: ms of the last event applied; successor: rid of the survivor
CREATE UNIQUE INDEX head_u ON head(rt,fid);
CREATE INDEX head_ord ON head(rt,ord,rid) WHERE deleted=0;
CREATE TABLE version(vid INTEGER PRIMARY KEY, rid INT NOT NULL, ver INT NOT NULL, lm INT NOT NULL, op INT NOT NULL, sub INT, enc INT NOT NULL,
  body BLOB);                                                        -- vid = feed position; sub = submission.seq; body NULL = deletion
CREATE UNIQUE INDEX version_u ON version(rid,ver);
CREATE TABLE ix(key INT, ord INT, rid INT, PRIMARY KEY(key,ord,rid)) WITHOUT ROWID; -- replaced by step 2
CREATE TABLE ix_str(key INT, val TEXT, rid INT, PRIMARY KEY(key,val,rid)) WITHOUT ROWID;
CREATE TABLE ix_range(key INT, lo INT, hi INT, rid INT, PRIMARY KEY(key,lo,hi,rid)) WITHOUT ROWID;
CREATE TABLE submission(seq INTEGER PRIMARY KEY, kind INT NOT NULL, received INT NOT NULL, listener TEXT NOT NULL, peer TEXT, identity TEXT,
  control TEXT, sha BLOB NOT NULL, receipt INT NOT NULL, answer BLOB, err TEXT, targets TEXT, ctype TEXT, enc INT NOT NULL, body BLOB, blob BLOB,
  report BLOB);                                                      -- receipt: 1 accepted, 0 rejected; targets: "rid/ver rid/ver"
CREATE TABLE dedupe(ctl INT, sha BLOB, seq INT NOT NULL, received INT NOT NULL, PRIMARY KEY(ctl,sha)) WITHOUT ROWID;
CREATE TABLE destination(ref TEXT PRIMARY KEY, cursor_vid INT NOT NULL, next_n INT NOT NULL DEFAULT 1, state INT NOT NULL, next_at INT, err TEXT) WITHOUT ROWID;
CREATE TABLE delivery(dest TEXT, n INT, vid INT NOT NULL, state INT NOT NULL, attempt INT NOT NULL DEFAULT 0, next_at INT, first_at INT, err TEXT,
  PRIMARY KEY(dest,n)) WITHOUT ROWID;
CREATE TABLE study(uid TEXT PRIMARY KEY, patient INT, acc_system TEXT, acc_value TEXT, elements TEXT NOT NULL, procedure TEXT, discontinued INT NOT NULL DEFAULT 0,
  conflicts INT NOT NULL DEFAULT 0, dirty_since INT, last_instance_at INT, published_at INT) WITHOUT ROWID;
CREATE INDEX study_dirty ON study(dirty_since) WHERE dirty_since IS NOT NULL;
CREATE TABLE series(uid TEXT PRIMARY KEY, study TEXT NOT NULL, number INT, elements TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX series_study ON series(study);
CREATE TABLE instance(sop TEXT NOT NULL, superseded INT NOT NULL DEFAULT 0, series TEXT NOT NULL, study TEXT NOT NULL, class TEXT NOT NULL, syntax TEXT NOT NULL,
  number INT, elements TEXT NOT NULL, bytes INT NOT NULL, sha BLOB NOT NULL, blob BLOB NOT NULL, sub INT NOT NULL, received INT NOT NULL,
  PRIMARY KEY(sop,superseded)) WITHOUT ROWID;                        -- superseded: 0 = current, else the submission that replaced it
CREATE INDEX instance_series ON instance(series,superseded);
CREATE TABLE mpps(uid TEXT PRIMARY KEY, study TEXT NOT NULL, state INT NOT NULL, revision INT NOT NULL, attributes TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE expectation(series TEXT, mpps TEXT, study TEXT NOT NULL, images INT, PRIMARY KEY(series,mpps)) WITHOUT ROWID;
CREATE TABLE meta(k TEXT PRIMARY KEY, v) WITHOUT ROWID;
