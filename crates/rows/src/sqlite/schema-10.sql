-- Who asked for a destination: the key that last wrote its Subscription. `?` = not known, which is nobody's key: it is to be written again.
ALTER TABLE destination ADD COLUMN owner TEXT;                         -- NULL = written where no key is needed
-- a Subscription of the versions before got its destination a moment after it was written
INSERT INTO destination(ref,cursor_vid,next_n,state) SELECT 'Subscription/'||h.fid, h.vid, 1, 0 FROM head h
  WHERE h.rt=129 AND h.deleted=0 AND NOT EXISTS(SELECT 1 FROM destination d WHERE d.ref='Subscription/'||h.fid);
DELETE FROM destination WHERE ref NOT IN (SELECT 'Subscription/'||fid FROM head WHERE rt=129 AND deleted=0);
DELETE FROM delivery WHERE dest NOT IN (SELECT ref FROM destination);
UPDATE destination SET owner=nullif(coalesce((SELECT coalesce(s.identity,'') FROM head h JOIN version v ON v.rid=h.rid JOIN submission s ON s.seq=v.sub
  WHERE h.rt=129 AND 'Subscription/'||h.fid=destination.ref AND s.kind=4 ORDER BY v.vid DESC LIMIT 1),'?'),'');
