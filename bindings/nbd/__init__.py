"""repstore_nbd: the NBD server of repstore, as bytes in and bytes out.

It knows the engine by the published C API alone (`frontend.h`) and runs inside its loop.
Where to begin: `protocol` (the bytes), `connection` (what is remembered, and the limits),
`handshake`, `transmission`, and `codec`, the table of calls that ties them together.
The link `bindings/repstore_nbd` lets Cython find the `.pxd` files under the package's name.
"""
from repstore_nbd.codec import frontend_capsule

frontend = frontend_capsule()

__all__ = ["frontend", "frontend_capsule"]
