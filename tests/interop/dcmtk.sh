#!/usr/bin/env bash
# DCMTK talks to a running edge: C-ECHO, a wrong title, C-STORE of a file made here, and reads it back byte for byte.
# Then `hilum send dicom` talks to DCMTK's storescp, which keeps what it receives bit for bit.
# Usage: dcmtk.sh PORT DATA_FOLDER; HILUM is the binary, target/debug/hilum unless set
set -euo pipefail
port=$1 data=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

echoscu -aec HILUM localhost "$port"
if echoscu -aec NOBODY localhost "$port" 2>/dev/null; then
  echo "a wrong called title was accepted" >&2
  exit 1
fi

cat > "$work/image.dump" <<'D'
(0008,0016) UI =CTImageStorage
(0008,0018) UI [1.2.826.0.1.3680043.8.498.1.1]
(0008,0020) DA [20240301]
(0008,0050) SH [A100]
(0008,0060) CS [CT]
(0010,0010) PN [Interop^Dcmtk]
(0010,0020) LO [DCMTK1]
(0020,000d) UI [1.2.826.0.1.3680043.8.498.1]
(0020,000e) UI [1.2.826.0.1.3680043.8.498.1.2]
(0020,0013) IS [1]
(0028,0010) US 2
(0028,0011) US 2
(7fe0,0010) OW 0001\0002\0003\0004
D
dump2dcm +te "$work/image.dump" "$work/image.dcm"
storescu -aec HILUM localhost "$port" "$work/image.dcm"
storescu -aec HILUM localhost "$port" "$work/image.dcm"

stored=$(find "$data"/sites/default/blobs -type f -not -path '*/blobs/tmp/*')
[ -n "$stored" ] && [ "$(echo "$stored" | wc -l)" = 1 ] || { echo "the image is not stored exactly once" >&2; exit 1; }
dcm2json "$work/image.dcm" > "$work/sent.json"
dcm2json "$stored" > "$work/stored.json"
cmp "$work/sent.json" "$work/stored.json"

hilum=${HILUM:-target/debug/hilum}
mkdir "$work/received"
free=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
storescp +B +xa -aet THEIRS -od "$work/received" "$free" &
scp=$!
trap 'kill $scp 2>/dev/null || true; rm -rf "$work"' EXIT
for _ in $(seq 100); do "$hilum" send dicom "127.0.0.1:$free" --called THEIRS >/dev/null 2>&1 && break; sleep 0.05; done
# in explicit big endian and deflated as well: the bytes of the data set must not change
dcmconv +tb "$work/image.dcm" "$work/big.dcm"
dcmconv +td "$work/image.dcm" "$work/deflated.dcm"
for file in image big deflated; do
  rm -f "$work"/received/*
  "$hilum" send dicom "127.0.0.1:$free" --called THEIRS "$work/$file.dcm" | grep -q ': 0000 success$'
  tail -c 60 "$work/$file.dcm" > "$work/sent.tail"
  tail -c 60 "$work"/received/* > "$work/received.tail"
  cmp "$work/sent.tail" "$work/received.tail"
done
echo "9 passed, 0 failed"
