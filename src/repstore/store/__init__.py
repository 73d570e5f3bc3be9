"""One node's log-structured store, policy side: create, open, recover. No network, no clock.

Begin with `geometry` (where things lie), then `superblock` and `root` (what names them),
`recovery` (what a crash left), `store` (the doors: create, open_store, info).
"""
