"""A real HL7 client (python-hl7 from PyPI) talks to a running edge. Usage: mllp.py HOST PORT"""
import sys

import hl7
from hl7.client import MLLPClient

host, port = sys.argv[1], int(sys.argv[2])
with MLLPClient(host, port) as client:
    for number in range(20):
        message = f"MSH|^~\\&|PY|NORTH|||20240101||ADT^A08|PY{number}|P|2.5\rPID|1||PY{number}||Python^Client\r"
        answer = hl7.parse(client.send_message(message).decode())
        assert str(answer.segment("MSA")[1]) == "AA", answer
        assert str(answer.segment("MSA")[2]) == f"PY{number}", answer
print("20 passed, 0 failed")
