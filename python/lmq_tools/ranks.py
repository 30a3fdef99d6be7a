"""The ranks of a run: one process, or those of mpirun and srun through mpi4py."""
import os
import time

import numpy as np

from .errors import need

LAUNCHERS = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK", "MPI_LOCALNRANKS")
PIECE = 1 << 26  # numbers of one reduction


class One:
    rank, size = 0, 1

    def share(self, value):
        return value

    def any(self, flag):
        return bool(flag)

    def add(self, array):
        return array

    def gather(self, value):
        return [value]

    def wait(self):
        pass

    def rest(self):
        pass

    def abort(self, code):
        raise SystemExit(code)


class Mpi:
    def __init__(self):
        self.mpi = need("mpi4py.MPI", "a run of several ranks")
        self.world = self.mpi.COMM_WORLD
        self.rank, self.size = self.world.Get_rank(), self.world.Get_size()

    def share(self, value):
        """Rank 0's value on all ranks."""
        return self.world.bcast(value, 0)

    def any(self, flag):
        return bool(self.world.allreduce(1 if flag else 0, self.mpi.MAX))

    def add(self, array):
        """Sum over ranks of an int64 array, in place, on all ranks."""
        flat = np.ascontiguousarray(array).reshape(-1)
        for at in range(0, len(flat), PIECE):
            self.world.Allreduce(self.mpi.IN_PLACE, flat[at:at + PIECE], self.mpi.SUM)
        return flat.reshape(array.shape)

    def gather(self, value):
        """All ranks' values on all ranks."""
        return self.world.allgather(value)

    def wait(self):
        self.world.Barrier()

    def rest(self):
        """As wait, for long: leaves the processor to others."""
        request = self.world.Ibarrier()
        while not request.Test():
            time.sleep(.05)

    def abort(self, code):
        self.world.Abort(code)


def ranks():
    """The communicator of this process. mpi4py is loaded only under a launcher of several processes."""
    return Mpi() if any(name in os.environ for name in LAUNCHERS) else One()
