;; A guest that runs until it is told to end. It waits for an event, does what the event says, and keeps account of its
;; heap, so that it notices when a byte of it changes behind its back.
;;
;; Memory: 0 the sum over the heap, 8 how many events came, 16 a digest over all events in their order,
;; 4,096 the image, from 65,536 the heap of 64-bit words.
(module
  ;; Returns what to do (see `run`), with two arguments.
  (import "host" "next" (func $next (result i32 i64 i64)))
  (import "host" "answer" (func $answer (param i64)))
  (memory (export "memory") 2 64)
  (data (i32.const 4096) "an image that guests of this component share")
  (data (i32.const 20480) "\01\02\03\04\05\06\07\08")
  ;; functions
  (type $number (func (result i64)))
  (global $heap i32 (i32.const 65536))

  ;; What a word adds to the sum: its place counts, and zero adds nothing.
  (func $weight (param $index i64) (param $value i64) (result i64)
    (i64.mul (local.get $value) (i64.or (i64.mul (local.get $index) (i64.const 0x9e3779b97f4a7c15)) (i64.const 1))))

  (func $words (result i64)
    (i64.extend_i32_u (i32.div_u (i32.sub (i32.mul (memory.size) (i32.const 65536)) (global.get $heap)) (i32.const 8))))

  (func $address (param $index i64) (result i32)
    (i32.add (global.get $heap) (i32.mul (i32.wrap_i64 (local.get $index)) (i32.const 8))))

  (func $set (param $index i64) (param $value i64)
    (i64.store (i32.const 0)
      (i64.add
        (i64.sub (i64.load (i32.const 0)) (call $weight (local.get $index) (i64.load (call $address (local.get $index)))))
        (call $weight (local.get $index) (local.get $value))))
    (i64.store (call $address (local.get $index)) (local.get $value)))

  ;; Adds the heap up anew. 1 if that is what was kept.
  (func $check (result i64)
    (local $index i64) (local $sum i64)
    (block $end
      (loop $more
        (br_if $end (i64.ge_u (local.get $index) (call $words)))
        (local.set $sum (i64.add (local.get $sum)
          (call $weight (local.get $index) (i64.load (call $address (local.get $index))))))
        (local.set $index (i64.add (local.get $index) (i64.const 1)))
        (br $more)))
    (i64.extend_i32_u (i64.eq (local.get $sum) (i64.load (i32.const 0)))))

  ;; Writes every page of the heap: its first word becomes `$value` plus the number of the page.
  (func $fill (param $value i64)
    (local $index i64)
    (block $end
      (loop $more
        (br_if $end (i64.ge_u (local.get $index) (call $words)))
        (call $set (local.get $index) (i64.add (local.get $value) (i64.div_u (local.get $index) (i64.const 512))))
        (local.set $index (i64.add (local.get $index) (i64.const 512)))
        (br $more))))

  (func (export "run")
    (local $what i32) (local $a i64) (local $b i64)
    (loop $again
      (call $next)
      (local.set $b) (local.set $a) (local.set $what)
      ;; 0: end
      (if (i32.eqz (local.get $what)) (then (return)))
      (i64.store (i32.const 8) (i64.add (i64.load (i32.const 8)) (i64.const 1)))
      (i64.store (i32.const 16)
        (i64.add (i64.mul (i64.load (i32.const 16)) (i64.const 0x2545f4914f6cdd1d))
          (i64.xor (local.get $a) (i64.rotl (local.get $b) (i64.const 32)))))
      ;; 1: write b to the word a
      (if (i32.eq (local.get $what) (i32.const 1)) (then (call $set (local.get $a) (local.get $b)) (call $answer (i64.const 1))))
      ;; 2: read the word a
      (if (i32.eq (local.get $what) (i32.const 2)) (then (call $answer (i64.load (call $address (local.get $a))))))
      ;; 3: grow by a pages of 64 KiB
      (if (i32.eq (local.get $what) (i32.const 3))
        (then (call $answer (i64.extend_i32_s (memory.grow (i32.wrap_i64 (local.get $a)))))))
      ;; 4: check the heap
      (if (i32.eq (local.get $what) (i32.const 4)) (then (call $answer (call $check))))
      ;; 5: write to every page of the heap
      (if (i32.eq (local.get $what) (i32.const 5)) (then (call $fill (local.get $a)) (call $answer (i64.const 1))))
      ;; 6: the digest over all events up to this one
      (if (i32.eq (local.get $what) (i32.const 6)) (then (call $answer (i64.load (i32.const 16)))))
      ;; 7: how many events came
      (if (i32.eq (local.get $what) (i32.const 7)) (then (call $answer (i64.load (i32.const 8)))))
      ;; 8: nothing but having happened
      (if (i32.eq (local.get $what) (i32.const 8)) (then (call $answer (i64.const 1))))
      ;; 9: call the element a of the table
      (if (i32.eq (local.get $what) (i32.const 9))
        (then (call $answer (call_indirect (type $number) (i32.wrap_i64 (local.get $a))))))
      ;; 10: grow the table by a elements
      (if (i32.eq (local.get $what) (i32.const 10))
        (then (call $answer (i64.extend_i32_s (table.grow (ref.func $function0) (i32.wrap_i64 (local.get $a)))))))
      (br $again))))
