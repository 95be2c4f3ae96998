-- The database of all sites; `site` comes first everywhere. lm is in microseconds, other times in milliseconds since 1970 (api_key: seconds).
-- Tables marked "partitioned" get their hash partitions, tables with `site` their row-level security, from migrate.rs.
CREATE TABLE site(no int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, id text NOT NULL UNIQUE, settings text NOT NULL,
  rid bigint NOT NULL DEFAULT 0, vid bigint NOT NULL DEFAULT 0, seq bigint NOT NULL DEFAULT 0);  -- the numbers given out; whoever writes holds this row
CREATE TABLE api_key(key_id text PRIMARY KEY, site text NOT NULL, name text NOT NULL, scopes text NOT NULL, secret_sha256 bytea NOT NULL,
  created bigint NOT NULL, expires bigint, last_used bigint, revoked bigint);
CREATE TABLE head(site int NOT NULL, rid bigint NOT NULL, rt smallint NOT NULL, fid text COLLATE "C" NOT NULL, ver int NOT NULL, vid bigint NOT NULL,
  ord bigint NOT NULL, deleted boolean NOT NULL DEFAULT false, applied bigint, successor bigint, PRIMARY KEY(site,rid), UNIQUE(site,rt,fid))
  PARTITION BY HASH(site);                                          -- applied: ms of the last event applied; successor: rid of the survivor
CREATE INDEX head_ord ON head(site,rt,ord,rid) WHERE NOT deleted;
CREATE TABLE version(site int NOT NULL, vid bigint NOT NULL, rid bigint NOT NULL, ver int NOT NULL, lm bigint NOT NULL, op smallint NOT NULL, sub bigint,
  enc smallint NOT NULL, body bytea, PRIMARY KEY(site,vid)) PARTITION BY HASH(site);             -- vid = feed position; body NULL = deletion
ALTER TABLE version ALTER body SET STORAGE EXTERNAL;                -- the bytes are packed already
CREATE UNIQUE INDEX version_u ON version(site,rid,ver);
CREATE TABLE ix(site int NOT NULL, key bigint NOT NULL, sys bigint NOT NULL, ord bigint NOT NULL, rid bigint NOT NULL) PARTITION BY HASH(site);
CREATE INDEX ix_k ON ix(site,key,sys,ord,rid);                      -- no primary key: the rows lie in the order of their coming
CREATE TABLE ix_str(site int NOT NULL, key bigint NOT NULL, val text COLLATE "C" NOT NULL, rid bigint NOT NULL) PARTITION BY HASH(site);
CREATE INDEX ix_str_k ON ix_str(site,key,val,rid);
CREATE TABLE ix_range(site int NOT NULL, key bigint NOT NULL, lo bigint NOT NULL, hi bigint NOT NULL, rid bigint NOT NULL) PARTITION BY HASH(site);
CREATE INDEX ix_range_k ON ix_range(site,key,lo,hi,rid);
CREATE TABLE submission(site int NOT NULL, seq bigint NOT NULL, kind smallint NOT NULL, received bigint NOT NULL, listener text NOT NULL, peer text,
  identity text, control text, sha bytea NOT NULL, accepted boolean NOT NULL, answer bytea, err text, targets text, ctype text, enc int NOT NULL,
  body bytea, blob bytea, report bytea, PRIMARY KEY(site,seq)) PARTITION BY HASH(site);          -- targets: "rid/ver rid/ver"
CREATE TABLE dedupe(site int NOT NULL, ctl bigint NOT NULL, sha bytea NOT NULL, seq bigint NOT NULL, received bigint NOT NULL, PRIMARY KEY(site,ctl,sha));
CREATE INDEX dedupe_seq ON dedupe(site,seq);
CREATE INDEX submission_blob ON submission(site,blob) WHERE blob IS NOT NULL;
CREATE TABLE quarantine(site int NOT NULL, seq bigint NOT NULL, received bigint NOT NULL, bytes bigint NOT NULL, PRIMARY KEY(site,seq)); -- a row while the original of a rejected submission is kept
CREATE TABLE orphan(site int NOT NULL, blob bytea NOT NULL, PRIMARY KEY(site,blob));                -- perhaps referred to by nobody
CREATE TABLE destination(site int NOT NULL, ref text NOT NULL, cursor_vid bigint NOT NULL, next_n bigint NOT NULL DEFAULT 1, state smallint NOT NULL,
  next_at bigint, err text, PRIMARY KEY(site,ref));
CREATE TABLE delivery(site int NOT NULL, dest text NOT NULL, n bigint NOT NULL, vid bigint NOT NULL, state smallint NOT NULL, attempt int NOT NULL DEFAULT 0,
  next_at bigint, first_at bigint, err text, PRIMARY KEY(site,dest,n));
CREATE INDEX delivery_open ON delivery(site,dest,n) WHERE state<3;
CREATE TABLE study(site int NOT NULL, uid text NOT NULL, patient bigint, acc_system text, acc_value text, elements text NOT NULL, procedure text,
  discontinued boolean NOT NULL DEFAULT false, conflicts int NOT NULL DEFAULT 0, dirty_since bigint, last_instance_at bigint, published_at bigint,
  PRIMARY KEY(site,uid));
CREATE INDEX study_dirty ON study(site,dirty_since) WHERE dirty_since IS NOT NULL;
CREATE TABLE series(site int NOT NULL, uid text COLLATE "C" NOT NULL, study text NOT NULL, number bigint, elements text NOT NULL, PRIMARY KEY(site,uid));
CREATE INDEX series_study ON series(site,study);
CREATE TABLE instance(site int NOT NULL, sop text COLLATE "C" NOT NULL, superseded bigint NOT NULL DEFAULT 0, series text NOT NULL, study text NOT NULL,
  class text NOT NULL, syntax text NOT NULL, number bigint, elements text NOT NULL, bytes bigint NOT NULL, sha bytea NOT NULL, blob bytea NOT NULL,
  sub bigint NOT NULL, received bigint NOT NULL, PRIMARY KEY(site,sop,superseded));              -- superseded: 0 = current, else the submission that replaced it
CREATE INDEX instance_series ON instance(site,series,superseded);
CREATE TABLE mpps(site int NOT NULL, uid text NOT NULL, study text NOT NULL, state smallint NOT NULL, revision bigint NOT NULL, attributes text NOT NULL,
  PRIMARY KEY(site,uid));
CREATE TABLE expectation(site int NOT NULL, series text NOT NULL, mpps text NOT NULL, study text NOT NULL, images bigint, PRIMARY KEY(site,series,mpps));
