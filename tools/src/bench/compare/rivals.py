# SQLite and RocksDB as durable appenders, driven by `graven bench compare`.
#
#   check ENGINE    prints its version, or says on standard error why there is none
#   run ENGINE      reads a line of JSON, prints "ready", reads a line, produces, prints a line of JSON, waits for the end of input
#   read ENGINE DIR prints what it has: each record behind its length, four bytes, little-endian
#
# Producers are threads of this process: the interpreter lets another run while one is in the engine.
import json
import os
import sys
import threading
import time


class SQLite:
    """A transaction a group, one at a time: SQLite has one writer, and a lock is fairer than its sleeping for the turn."""

    def __init__(self, directory):
        import sqlite3

        self.db = sqlite3.connect(
            os.path.join(directory, "records.db"), isolation_level=None, check_same_thread=False
        )
        mode = self.db.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        assert mode == "wal", mode
        self.db.execute("PRAGMA synchronous=FULL")
        self.db.execute("CREATE TABLE IF NOT EXISTS records(id INTEGER PRIMARY KEY, bytes BLOB NOT NULL)")
        self.lock = threading.Lock()

    @staticmethod
    def version():
        import sqlite3

        return sqlite3.sqlite_version

    def push(self, producer, first, group):
        insert = "INSERT INTO records(bytes) VALUES(?)"
        with self.lock:
            if len(group) == 1:
                self.db.execute(insert, (group[0],))
            else:
                self.db.execute("BEGIN")
                self.db.executemany(insert, ((it,) for it in group))
                self.db.execute("COMMIT")

    def records(self):
        return (row[0] for row in self.db.execute("SELECT bytes FROM records ORDER BY id"))


class RocksDB:
    """A synchronous write a group, side by side: RocksDB commits what waits together."""

    def __init__(self, directory):
        import ctypes

        self.c = ctypes
        self.lib = lib = self.library()
        pointer, size = ctypes.c_void_p, ctypes.c_size_t
        error = ctypes.POINTER(ctypes.c_char_p)
        text = ctypes.c_char_p
        for name, result, arguments in [
            ("options_create", pointer, []),
            ("options_set_create_if_missing", None, [pointer, ctypes.c_ubyte]),
            ("open", pointer, [pointer, text, error]),
            ("writeoptions_create", pointer, []),
            ("writeoptions_set_sync", None, [pointer, ctypes.c_ubyte]),
            ("writebatch_create", pointer, []),
            ("writebatch_put", None, [pointer, text, size, text, size]),
            ("writebatch_destroy", None, [pointer]),
            ("put", None, [pointer, pointer, text, size, text, size, error]),
            ("write", None, [pointer, pointer, pointer, error]),
            ("readoptions_create", pointer, []),
            ("create_iterator", pointer, [pointer, pointer]),
            ("iter_seek_to_first", None, [pointer]),
            ("iter_valid", ctypes.c_ubyte, [pointer]),
            ("iter_next", None, [pointer]),
            ("iter_value", pointer, [pointer, ctypes.POINTER(size)]),
            ("iter_get_error", None, [pointer, error]),
        ]:
            function = getattr(lib, "rocksdb_" + name)
            function.restype, function.argtypes = result, arguments
        options = lib.rocksdb_options_create()
        lib.rocksdb_options_set_create_if_missing(options, 1)
        path = os.path.join(directory, "rocksdb").encode()
        self.db = self.checked(lib.rocksdb_open, options, path)
        self.sync = lib.rocksdb_writeoptions_create()
        lib.rocksdb_writeoptions_set_sync(self.sync, 1)

    @staticmethod
    def library():
        import ctypes
        import ctypes.util

        name = ctypes.util.find_library("rocksdb")
        if name is None:
            raise ImportError("librocksdb.so is not there")
        return ctypes.CDLL(name)

    @classmethod
    def version(cls):
        return cls.library()._name

    def checked(self, function, *arguments):
        error = self.c.c_char_p()
        result = function(*arguments, self.c.byref(error))
        if error.value is not None:
            raise OSError(error.value.decode(errors="replace"))
        return result

    def push(self, producer, first, group):
        lib = self.lib
        key = lambda n: b"%02x%012x" % (producer, n)
        if len(group) == 1:
            it = group[0]
            self.checked(lib.rocksdb_put, self.db, self.sync, key(first), 14, it, len(it))
            return
        batch = lib.rocksdb_writebatch_create()
        for n, it in enumerate(group, first):
            lib.rocksdb_writebatch_put(batch, key(n), 14, it, len(it))
        self.checked(lib.rocksdb_write, self.db, self.sync, batch)
        lib.rocksdb_writebatch_destroy(batch)

    def records(self):
        lib, size = self.lib, self.c.c_size_t()
        it = lib.rocksdb_create_iterator(self.db, lib.rocksdb_readoptions_create())
        lib.rocksdb_iter_seek_to_first(it)
        while lib.rocksdb_iter_valid(it):
            value = lib.rocksdb_iter_value(it, self.c.byref(size))
            yield self.c.string_at(value, size.value)
            lib.rocksdb_iter_next(it)
        self.checked(lib.rocksdb_iter_get_error, it)


ENGINES = {"sqlite": SQLite, "rocksdb": RocksDB}


def run(engine):
    spec = json.loads(sys.stdin.readline())
    engine = engine(spec["dir"])
    sizes, text, group = spec["sizes"], spec["text"].encode(), spec["group"]
    number = 14
    count = spec["producers"]
    sent, latencies, failures = [0] * count, [[] for _ in range(count)], []

    def produce(producer):
        first, clock = 0, time.monotonic_ns
        try:
            while clock() < until:
                records = [
                    b"%02x %010x " % (producer, n) + text[: sizes[n % len(sizes)] - number]
                    for n in range(first, first + group)
                ]
                handed = clock()
                engine.push(producer, first, records)
                latencies[producer].append(clock() - handed)
                first += group
                sent[producer] = first
        except Exception as why:
            failures.append(why)

    print("ready", flush=True)
    if not sys.stdin.readline():
        return
    start = time.monotonic_ns()
    until = start + spec["length_ns"]
    threads = [threading.Thread(target=produce, args=(it,), daemon=True) for it in range(count)]
    for it in threads:
        it.start()
    for it in threads:
        it.join()
    took = time.monotonic_ns() - start
    if failures:
        raise failures[0]
    print(json.dumps({"sent": sent, "took_ns": took, "latencies_ns": sum(latencies, [])}), flush=True)
    # Who started this looks at what it has used, and ends it.
    sys.stdin.read()


def main(what, name, *rest):
    engine = ENGINES[name]
    if what == "check":
        print(engine.version())
    elif what == "run":
        run(engine)
    else:
        out = sys.stdout.buffer
        for it in engine(*rest).records():
            out.write(len(it).to_bytes(4, "little") + it)
        out.flush()


try:
    main(*sys.argv[1:])
except Exception as why:
    sys.exit(f"{type(why).__name__}: {why}")
