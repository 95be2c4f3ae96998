-- One index row for each fact: a token's system beside the key of its code, values that several parameters offer once.
DROP TABLE ix;
CREATE TABLE ix(key INT, sys INT, ord INT, rid INT, PRIMARY KEY(key,sys,ord,rid)) WITHOUT ROWID; -- sys: 32 bits of the system's hash, 0 = none
