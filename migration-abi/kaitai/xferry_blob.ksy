meta:
  id: xferry_blob
  title: Xferry extended-state blob, version 1
  file-extension: bin
  license: MIT OR Apache-2.0
  ks-version: '0.10'
  endian: le
doc: |
  Everything that the x86 XSAVE family saves of one virtual CPU, in a form that
  any host can judge: a header, a directory of the layout that the state was
  saved under, a compacted XSAVE image, and (where a flag says so) a CRC-32C of
  all before it.

  `docs/src/wire-blob.md` is the standard. This description checks magic,
  version, flags and the bounds of lengths; the checksum and the order of the
  directory it does not. Whether the components lie in the image, the instance
  `sound` says: read no `state` where it is false.

  Masks of components are read as two halves, because some of Kaitai's targets
  (JavaScript among them) have no exact 64-bit integers.
seq:
  - id: header
    type: header
  - id: header_extension
    size: header.header_len - 96
    doc: Compatible additions of a later writer, to be skipped.
  - id: directory
    type: entry(_index)
    size: header.dir_entry_len
    repeat: expr
    repeat-expr: header.dir_entries
    doc: One entry for each bit of `xstate_mask`, ascending.
  - id: image
    type: image
    size: header.image_len
  - id: crc32c
    type: u4
    if: header.has_crc
instances:
  directory_complete:
    value: >-
      header.dir_entries == 0
      ? header.xstate_mask.lo == 0 and header.xstate_mask.hi == 0
      : (directory[header.dir_entries - 1].described_lo.as<u4> ^ header.xstate_mask.lo) == 0
      and (directory[header.dir_entries - 1].described_hi.as<u4> ^ header.xstate_mask.hi) == 0
    doc: Whether the directory describes the components of `xstate_mask`, and no others.
  compacted:
    value: '(image.xcomp_bv.hi >> 31) & 1 == 1'
    doc: Whether the image has the form that a blob's image has.
  layout_described:
    value: >-
      directory_complete
      and (image.xcomp_bv.lo & ~header.xstate_mask.lo) == 0
      and (image.xcomp_bv.hi & 0x7fffffff & ~header.xstate_mask.hi) == 0
    doc: Whether the directory has all that the image is laid out for.
  held_laid_out:
    value: >-
      (image.xstate_bv.lo & ~image.xcomp_bv.lo) == 0
      and (image.xstate_bv.hi & ~(image.xcomp_bv.hi & 0x7fffffff)) == 0
    doc: Whether the image is laid out for all that it holds.
  components_end:
    value: 'header.dir_entries == 0 ? 576 : directory[header.dir_entries - 1].end.as<u4>'
    doc: Where the last component ends in the image.
  sound:
    value: compacted and layout_described and held_laid_out and components_end == header.image_len
    doc: Whether every component lies in the image.
types:
  mask:
    doc: A set of state components, one bit each.
    seq:
      - id: lo
        type: u4
        doc: Components 0 to 31.
      - id: hi
        type: u4
        doc: Components 32 to 62; the uppermost bit is XCOMP_BV's "compacted".
  header:
    seq:
      - id: magic
        contents: XFXSTATE
      - id: version
        type: u2
        valid: 1
      - id: header_len
        type: u2
        valid:
          min: 96
          max: 128
        doc: A multiple of 8.
      - id: dir_entry_len
        type: u2
        valid:
          min: 16
          max: 64
        doc: A multiple of 4.
      - id: dir_entries
        type: u2
        valid:
          max: 63
        doc: Number of bits set in `xstate_mask`.
      - id: compatible
        type: u4
        doc: Flags that a reader may ignore; none is defined.
      - id: incompatible
        type: u4
        valid:
          max: 3
        doc: Flags that a reader must know.
      - id: total_len
        type: u8
        doc: Of everything, trailer included.
      - id: xstate_mask
        type: mask
        doc: The policy, components that the virtual CPU may ever use.
      - id: xcr0
        type: mask
      - id: xss
        type: mask
        doc: IA32_XSS.
      - id: xfd
        type: mask
        doc: The guest's IA32_XFD, never one that the host armed.
      - id: xfd_err
        type: mask
      - id: accum
        type: mask
        doc: Components that may hold state.
      - id: xcomp_bv
        type: mask
        doc: The image's XCOMP_BV, and equal to it.
      - id: image_len
        type: u4
        valid:
          min: 576
          max: 4194304
      - id: reserved
        type: u4
        valid: 0
    instances:
      has_crc:
        value: (incompatible & 1) != 0
      no_xsave:
        value: (incompatible & 2) != 0
        doc: The policy has no XSAVE, and the image holds x87 and SSE alone.
  entry:
    params:
      - id: number
        type: s4
        doc: The entry's place in the directory.
    seq:
      - id: index
        type: u4
        enum: component
        valid:
          expr: _.to_i <= 62
      - id: len_state
        type: u4
        doc: Bytes of its state, as CPUID leaf 0xD of the writing machine has it.
      - id: flags
        type: u4
        valid:
          max: 7
      - id: standard_offset
        type: u4
        doc: Where it lies in the standard form; 0 for supervisor components.
    instances:
      supervisor:
        value: (flags & 1) != 0
        doc: Enabled by IA32_XSS rather than XCR0.
      align64:
        value: (flags & 2) != 0
        doc: Lies at a multiple of 64 in the compacted form.
      xfd:
        value: (flags & 4) != 0
        doc: Can be disabled by IA32_XFD.
      legacy:
        value: index.to_i < 2
        doc: x87 and SSE, which the legacy region holds whatever XCOMP_BV says.
      in_image:
        value: >-
          legacy or (index.to_i < 32
          ? (_root.image.xcomp_bv.lo >> index.to_i) & 1
          : (_root.image.xcomp_bv.hi >> (index.to_i - 32)) & 1) == 1
      held:
        value: >-
          (index.to_i < 32
          ? (_root.image.xstate_bv.lo >> index.to_i) & 1
          : (_root.image.xstate_bv.hi >> (index.to_i - 32)) & 1) == 1
        doc: Whether its state is in the image; otherwise it is INIT.
      described_lo:
        value: >-
          (number == 0 ? 0 : _root.directory[number - 1].described_lo.as<u4>)
          | (index.to_i < 32 ? 1 << index.to_i : 0)
        doc: Components 0 to 31 that the directory has described up to here.
      described_hi:
        value: >-
          (number == 0 ? 0 : _root.directory[number - 1].described_hi.as<u4>)
          | (index.to_i < 32 ? 0 : 1 << (index.to_i - 32))
        doc: Components 32 to 62.
      end_before:
        value: 'number == 0 ? 576 : _root.directory[number - 1].end.as<u4>'
        doc: Where the components before it end in the image.
      start:
        value: 'align64 ? (end_before + 63) / 64 * 64 : end_before'
      end:
        value: 'in_image and not legacy ? start + len_state : end_before'
      image_offset:
        value: 'legacy ? standard_offset : start'
        if: in_image
        doc: Where it lies in the image (SDM Vol. 1, 13.4.3).
      state:
        io: _root.image._io
        pos: image_offset
        size: len_state
        if: in_image and held
  image:
    seq:
      - id: fcw
        type: u2
      - id: fsw
        type: u2
      - id: ftw
        type: u1
        doc: Abridged; a set bit is a register in use.
      - id: reserved0
        size: 1
      - id: fop
        type: u2
      - id: fip
        type: u8
      - id: fdp
        type: u8
      - id: mxcsr
        type: u4
        doc: Counts only with bit 1 of `xstate_bv`; otherwise MXCSR is 0x1f80.
      - id: mxcsr_mask
        type: u4
      - id: st
        type: st
        repeat: expr
        repeat-expr: 8
      - id: xmm
        size: 16
        repeat: expr
        repeat-expr: 16
      - id: reserved1
        size: 96
      - id: xstate_bv
        type: mask
        doc: Components whose state the image holds; others are INIT.
      - id: xcomp_bv
        type: mask
        doc: Components that the image is laid out for.
      - id: reserved2
        size: 48
      - id: extended
        size-eos: true
        doc: Components 2 and above; the directory's `state` cuts them out.
  st:
    doc: An x87 register in its 16 bytes.
    seq:
      - id: significand
        type: u8
      - id: sign_exponent
        type: u2
      - id: reserved
        size: 6
enums:
  component:
    0: x87
    1: sse
    2: avx
    3: bndregs
    4: bndcsr
    5: opmask
    6: zmm_hi256
    7: hi16_zmm
    8: pt
    9: pkru
    10: pasid
    11: cet_u
    12: cet_s
    13: hdc
    14: uintr
    15: lbr
    16: hwp
    17: tilecfg
    18: tiledata
    19: apx
    62: lwp
