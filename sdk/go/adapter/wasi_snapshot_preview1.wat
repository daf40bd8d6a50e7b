;; The functions of WASI preview 1 that Go's runtime imports, implemented with Tidegate's host functions: clocks, randomness, stderr and
;; the end of the process. There is one folder, `/`, which is empty and read-only, because Go then reports that a file does not exist;
;; without a folder it reports a bad file number. There are no sockets and no arguments. `cargo xtask bindings` compiles this to
;; wasi_snapshot_preview1.wasm.
;;
;; A component must not call its host while the host passes a value to it: `cabi_realloc` and all code that it runs may call no import.
;; Go may read a clock there, so the SDK closes the adapter before each such call and opens it afterwards. A closed adapter calls no import;
;; its clocks return values that it derives from the last reading.
(module
  (import "env" "memory" (memory 0))
  (import "tidegate:policy/context@0.1.0" "now" (func $wall_milliseconds (result i64)))
  (import "wasi:clocks/monotonic-clock@0.2.0" "now" (func $monotonic_now (result i64)))
  (import "wasi:clocks/monotonic-clock@0.2.0" "subscribe-duration" (func $alarm (param $nanoseconds i64) (result i32)))
  (import "wasi:io/poll@0.2.0" "[method]pollable.block" (func $wait (param $pollable i32)))
  (import "wasi:io/poll@0.2.0" "[resource-drop]pollable" (func $drop_pollable (param i32)))
  (import "wasi:random/random@0.2.0" "get-random-u64" (func $random (result i64)))
  (import "wasi:cli/exit@0.2.0" "exit" (func $exit (param $failed i32)))
  (import "wasi:cli/stderr@0.2.0" "get-stderr" (func $get_stderr (result i32)))
  (import "wasi:io/streams@0.2.0" "[method]output-stream.blocking-write-and-flush"
    (func $write (param $stream i32) (param $from i32) (param $size i32) (param $outcome i32)))

  ;; Initially open, because Go's runtime starts by reading randomness and the time.
  (global $open (mut i32) (i32.const 1))
  (global $wall (mut i64) (i64.const 0))
  (global $monotonic (mut i64) (i64.const 0))
  (global $stderr (mut i32) (i32.const -1))
  ;; Address of 12 bytes for the result of a write. Until the SDK sets it, they are below Go's data, which starts at 12288: a package that
  ;; is initialized before the SDK may panic.
  (global $scratch (mut i32) (i32.const 4096))

  (func (export "tidegate_open") (global.set $open (i32.const 1)))
  (func (export "tidegate_close") (global.set $open (i32.const 0)))
  (func (export "tidegate_scratch") (param $area i32) (global.set $scratch (local.get $area)))

  (func $now (param $clock i32) (result i64)
    (if (i32.eqz (local.get $clock))
      (then
        (if (global.get $open)
          (then (global.set $wall (i64.mul (call $wall_milliseconds) (i64.const 1_000_000)))))
        (return (global.get $wall))))
    (if (global.get $open)
      (then (global.set $monotonic (call $monotonic_now)))
      ;; The clock advances with each call, so that loops that wait for a time end.
      (else (global.set $monotonic (i64.add (global.get $monotonic) (i64.const 1_000)))))
    (global.get $monotonic))

  (func (export "clock_time_get") (param $clock i32) (param i64) (param $out i32) (result i32)
    (i64.store (local.get $out) (call $now (local.get $clock)))
    (i32.const 0))

  (func (export "random_get") (param $to i32) (param $size i32) (result i32)
    (local $word i64)
    ;; 52 is ENOSYS: no randomness is better than predictable randomness.
    (if (i32.eqz (global.get $open)) (then (return (i32.const 52))))
    (loop $words
      (if (i32.ge_u (local.get $size) (i32.const 8))
        (then
          (i64.store (local.get $to) (call $random))
          (local.set $to (i32.add (local.get $to) (i32.const 8)))
          (local.set $size (i32.sub (local.get $size) (i32.const 8)))
          (br $words))))
    (if (local.get $size) (then (local.set $word (call $random))))
    (loop $bytes
      (if (local.get $size)
        (then
          (i64.store8 (local.get $to) (local.get $word))
          (local.set $word (i64.shr_u (local.get $word) (i64.const 8)))
          (local.set $to (i32.add (local.get $to) (i32.const 1)))
          (local.set $size (i32.sub (local.get $size) (i32.const 1)))
          (br $bytes))))
    (i32.const 0))

  ;; Writes the bytes of the vectors to stderr, which the gateway logs. 8 is EBADF.
  (func (export "fd_write") (param $fd i32) (param $vectors i32) (param $count i32) (param $written i32) (result i32)
    (local $total i32) (local $from i32) (local $size i32) (local $part i32)
    (if (i32.gt_u (i32.sub (local.get $fd) (i32.const 1)) (i32.const 1)) (then (return (i32.const 8))))
    (block $done
      (loop $next
        (br_if $done (i32.eqz (local.get $count)))
        (local.set $from (i32.load (local.get $vectors)))
        (local.set $size (i32.load offset=4 (local.get $vectors)))
        (local.set $total (i32.add (local.get $total) (local.get $size)))
        (local.set $vectors (i32.add (local.get $vectors) (i32.const 8)))
        (local.set $count (i32.sub (local.get $count) (i32.const 1)))
        (br_if $next (i32.eqz (global.get $open)))
        (if (i32.eq (global.get $stderr) (i32.const -1)) (then (global.set $stderr (call $get_stderr))))
        (loop $parts
          (if (local.get $size)
            (then
              ;; A stream accepts 4096 bytes per call.
              (local.set $part
                (select (local.get $size) (i32.const 4096) (i32.lt_u (local.get $size) (i32.const 4096))))
              (call $write (global.get $stderr) (local.get $from) (local.get $part) (global.get $scratch))
              (local.set $from (i32.add (local.get $from) (local.get $part)))
              (local.set $size (i32.sub (local.get $size) (local.get $part)))
              (br $parts))))
        (br $next)))
    (i32.store (local.get $written) (local.get $total))
    (i32.const 0))

  ;; Waits for the first clock among the subscriptions, of 48 bytes each. Other subscriptions are not supported.
  (func (export "poll_oneoff")
    (param $subscriptions i32) (param $events i32) (param $count i32) (param $happened i32) (result i32)
    (local $time i64) (local $now i64) (local $pollable i32)
    (block $clock
      (loop $next
        (if (i32.eqz (local.get $count)) (then (return (i32.const 52))))
        (br_if $clock (i32.eqz (i32.load8_u offset=8 (local.get $subscriptions))))
        (local.set $subscriptions (i32.add (local.get $subscriptions) (i32.const 48)))
        (local.set $count (i32.sub (local.get $count) (i32.const 1)))
        (br $next)))
    (local.set $time (i64.load offset=24 (local.get $subscriptions)))
    ;; A flag marks absolute times.
    (if (i32.and (i32.load16_u offset=40 (local.get $subscriptions)) (i32.const 1))
      (then
        (local.set $now (call $now (i32.load offset=16 (local.get $subscriptions))))
        (local.set $time
          (select (i64.sub (local.get $time) (local.get $now)) (i64.const 0)
            (i64.gt_u (local.get $time) (local.get $now))))))
    (if (i32.and (global.get $open) (i64.ne (local.get $time) (i64.const 0)))
      (then
        (local.set $pollable (call $alarm (local.get $time)))
        (call $wait (local.get $pollable))
        (call $drop_pollable (local.get $pollable))))
    (i64.store (local.get $events) (i64.load (local.get $subscriptions)))
    (i64.store offset=8 (local.get $events) (i64.const 0))
    (i32.store (local.get $happened) (i32.const 1))
    (i32.const 0))

  (func (export "args_sizes_get") (param $count i32) (param $bytes i32) (result i32)
    (i32.store (local.get $count) (i32.const 0))
    (i32.store (local.get $bytes) (i32.const 0))
    (i32.const 0))
  (func (export "args_get") (param i32 i32) (result i32) (i32.const 0))

  ;; GOGC=off and GOMEMLIMIT=24MiB: an instance lives for one decision, so garbage is collected only when memory would run out.
  (func (export "environ_sizes_get") (param $count i32) (param $bytes i32) (result i32)
    (i32.store (local.get $count) (i32.const 2))
    (i32.store (local.get $bytes) (i32.const 26))
    (i32.const 0))
  (func (export "environ_get") (param $pointers i32) (param $text i32) (result i32)
    (i32.store (local.get $pointers) (local.get $text))
    (i32.store offset=4 (local.get $pointers) (i32.add (local.get $text) (i32.const 9)))
    (i64.store offset=0 (local.get $text) (i64.const 0x66666f3d43474f47))
    (i64.store offset=8 (local.get $text) (i64.const 0x494c4d454d4f4700))
    (i64.store offset=16 (local.get $text) (i64.const 0x694d34323d54494d))
    (i32.store16 offset=24 (local.get $text) (i32.const 0x42))
    (i32.const 0))

  (func (export "sched_yield") (result i32) (i32.const 0))
  (func (export "proc_exit") (param $code i32)
    (if (global.get $open) (then (call $exit (i32.ne (local.get $code) (i32.const 0)))))
    unreachable)

  ;; The folder `/` has the first number after stdin, stdout and stderr. 8 is EBADF.
  (func (export "fd_prestat_get") (param $fd i32) (param $out i32) (result i32)
    (if (i32.ne (local.get $fd) (i32.const 3)) (then (return (i32.const 8))))
    (i64.store (local.get $out) (i64.const 0x1_0000_0000))
    (i32.const 0))
  (func (export "fd_prestat_dir_name") (param $fd i32) (param $to i32) (param $size i32) (result i32)
    (i32.store8 (local.get $to) (i32.const 0x2f))
    (i32.const 0))

  ;; 44 is ENOENT, 69 is EROFS. The first bit of the flags asks to create the file.
  (func (export "path_open")
    (param $fd i32) (param i32 i32 i32) (param $flags i32) (param i64 i64 i32 i32) (result i32)
    (select (i32.const 69) (i32.const 44) (i32.and (local.get $flags) (i32.const 1))))
  (func (export "path_filestat_get") (param i32 i32 i32 i32 i32) (result i32) (i32.const 44))
  (func (export "path_filestat_set_times") (param i32 i32 i32 i32 i64 i64 i32) (result i32) (i32.const 44))
  (func (export "path_readlink") (param i32 i32 i32 i32 i32 i32) (result i32) (i32.const 44))
  (func (export "path_remove_directory") (param i32 i32 i32) (result i32) (i32.const 44))
  (func (export "path_unlink_file") (param i32 i32 i32) (result i32) (i32.const 44))
  (func (export "path_rename") (param i32 i32 i32 i32 i32 i32) (result i32) (i32.const 44))
  (func (export "path_create_directory") (param i32 i32 i32) (result i32) (i32.const 69))
  (func (export "path_link") (param i32 i32 i32 i32 i32 i32 i32) (result i32) (i32.const 69))
  (func (export "path_symlink") (param i32 i32 i32 i32 i32) (result i32) (i32.const 69))

  ;; Unsupported functions return EBADF.
  (func (export "clock_res_get") (param i32 i32) (result i32) (i32.const 8))
  (func (export "fd_advise") (param i32 i64 i64 i32) (result i32) (i32.const 8))
  (func (export "fd_allocate") (param i32 i64 i64) (result i32) (i32.const 8))
  (func (export "fd_close") (param i32) (result i32) (i32.const 8))
  (func (export "fd_datasync") (param i32) (result i32) (i32.const 8))
  (func (export "fd_fdstat_get") (param i32 i32) (result i32) (i32.const 8))
  (func (export "fd_fdstat_set_flags") (param i32 i32) (result i32) (i32.const 8))
  (func (export "fd_fdstat_set_rights") (param i32 i64 i64) (result i32) (i32.const 8))
  (func (export "fd_filestat_get") (param i32 i32) (result i32) (i32.const 8))
  (func (export "fd_filestat_set_size") (param i32 i64) (result i32) (i32.const 8))
  (func (export "fd_filestat_set_times") (param i32 i64 i64 i32) (result i32) (i32.const 8))
  (func (export "fd_pread") (param i32 i32 i32 i64 i32) (result i32) (i32.const 8))
  (func (export "fd_pwrite") (param i32 i32 i32 i64 i32) (result i32) (i32.const 8))
  (func (export "fd_read") (param i32 i32 i32 i32) (result i32) (i32.const 8))
  (func (export "fd_readdir") (param i32 i32 i32 i64 i32) (result i32) (i32.const 8))
  (func (export "fd_renumber") (param i32 i32) (result i32) (i32.const 8))
  (func (export "fd_seek") (param i32 i64 i32 i32) (result i32) (i32.const 8))
  (func (export "fd_sync") (param i32) (result i32) (i32.const 8))
  (func (export "fd_tell") (param i32 i32) (result i32) (i32.const 8))
  (func (export "proc_raise") (param i32) (result i32) (i32.const 8))
  (func (export "sock_accept") (param i32 i32 i32) (result i32) (i32.const 8))
  (func (export "sock_recv") (param i32 i32 i32 i32 i32 i32) (result i32) (i32.const 8))
  (func (export "sock_send") (param i32 i32 i32 i32 i32) (result i32) (i32.const 8))
  (func (export "sock_shutdown") (param i32 i32) (result i32) (i32.const 8)))
