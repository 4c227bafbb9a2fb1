"""BVH files: `read_bvh` reads, `writer.write_bvh` writes, `rigs` maps other skeletons to the 22 joints."""

from motion.bvh.reader import read_bvh

__all__ = ["read_bvh"]
