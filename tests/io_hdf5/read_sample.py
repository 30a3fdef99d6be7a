"""Reads the sample file with h5py. Usage: read_sample.py FILE. Exit code 77: h5py is not there."""
import sys

try:
    import h5py
    import numpy
except ImportError as error:
    print("skipped:", error)
    sys.exit(77)

NUMPY = {"U8": "u1", "I8": "i1", "I16": "<i2", "U16": "<u2", "I32": "<i4", "U32": "<u4", "I64": "<i8", "U64": "<u8",
         "F16": "<f2", "F32": "<f4", "F64": "<f8", "BOOL": "u1", "C64": "<f4"}


def payload(dataset, piece, count):
    return ((dataset * 131 + piece * 31 + numpy.arange(count) * 7 + 1) % 256).astype("u1").tobytes()


with h5py.File(sys.argv[1], "r") as file:
    names = []
    file.visititems(lambda name, item: names.append("/" + name) if isinstance(item, h5py.Dataset) else None)
    names.sort(key=lambda name: name.encode())
    assert len(names) > 100, names
    for index, name in enumerate(names):
        item = file[name]
        if item.chunks is None:
            if item.size and item.dtype.itemsize * item.size == item.id.get_storage_size():
                assert item[()].tobytes() == payload(index, 0, item.id.get_storage_size()), name
        elif item.id.get_create_plist().get_nfilters():
            assert item.id.get_create_plist().get_filter(0)[0] == 47803, name
            for piece in range(min(item.id.get_num_chunks(), 20)):
                where = item.id.get_chunk_info(piece)
                assert item.id.read_direct_chunk(where.chunk_offset)[1] == payload(index, piece, where.size), name
    for name, kind in NUMPY.items():
        assert file[f"/types/{name}.matrix"].dtype == numpy.dtype(kind), name
        assert file[f"/types/{name}.empty"].size == 0, name
    assert file["/types/F4.matrix"].shape == (12,) and list(file["/types/F4.matrix"].attrs["lmq_stored_shape"]) == [3, 8]
    assert file["/types/C64.matrix"].shape == (3, 8, 2)
    bits = numpy.frombuffer(payload(names.index("/model.norm"), 0, 18), "<u2").astype("u4") << 16
    assert numpy.array_equal(file["/model.norm"][()].astype("f4").view("u4"), bits), "BF16 widens exactly"
    attributes = file["/lmq"].attrs
    assert attributes["lmq_text"] == "k-means" and attributes["empty"] == ""
    assert attributes["größe"] == 'naïve 重み 🙂 \n\t"quoted"'
    assert attributes["i64"] == -9000000000 and attributes["u64"] == 2**64 - 1 and attributes["f64"] == 0.1
    assert list(attributes["list_u64"]) == [3, 1, 2] and attributes["none_f64"].shape == (0,)
    assert file["/encoded/with-attributes"].attrs["dense_99"] == 99.0
    assert file["/a.b-c d/深い/ёж/.../.."].shape == (1,)
    print(len(names), "datasets read with h5py", h5py.version.version, "on HDF5", h5py.version.hdf5_version)
