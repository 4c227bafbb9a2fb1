"""BVH files: `read_bvh` reads them, `writer.write_bvh` writes them, `rigs` knows the skeletons they come with."""

from motion.bvh.reader import read_bvh

__all__ = ["read_bvh"]
