# a capsule that only native code opens
driver: object
