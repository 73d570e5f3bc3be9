"""The native data plane. A leaf: it imports nothing of repstore but itself."""
