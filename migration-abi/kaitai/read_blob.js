// Compiles xferry_blob.ksy and prints what it reads in each blob as JSON.
//
//     npm install kaitai-struct-compiler kaitai-struct js-yaml
//     NODE_PATH=node_modules node read_blob.js blob.bin
//
// A blob that the description refuses prints {"refused": why} in its place.
"use strict";

const fs = require("fs");
const path = require("path");
const vm = require("vm");
const compiler = require("kaitai-struct-compiler");
const yaml = require("js-yaml");
const KaitaiStream = require("kaitai-struct/KaitaiStream");

const hex = (mask) =>
  "0x" + ((BigInt(mask.hi) << 32n) | BigInt(mask.lo)).toString(16);

// The compiled parser, without a file of its own.
async function load() {
  const text = fs.readFileSync(path.join(__dirname, "xferry_blob.ksy"), "utf8");
  const files = await compiler.compile("javascript", yaml.load(text), null, false);
  const exports = {};
  const module = { exports };
  const wanted = (name) =>
    name === "kaitai-struct/KaitaiStream" ? KaitaiStream : require(name);
  vm.runInThisContext(`(function (exports, module, require) {${files["XferryBlob.js"]}\n})`)(
    exports, module, wanted);
  return { parser: module.exports.XferryBlob || exports.XferryBlob || module.exports };
}

function read(parser, file) {
  const bytes = fs.readFileSync(file);
  const buffer = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length);
  const blob = new parser(new KaitaiStream(buffer));
  const header = blob.header;
  return {
    version: header.version,
    total_len: header.totalLen,
    incompatible: header.incompatible,
    xstate_mask: hex(header.xstateMask),
    xcr0: hex(header.xcr0),
    xss: hex(header.xss),
    xfd: hex(header.xfd),
    xfd_err: hex(header.xfdErr),
    accum: hex(header.accum),
    xcomp_bv: hex(header.xcompBv),
    image: {
      bytes: header.imageLen,
      fcw: blob.image.fcw,
      mxcsr: blob.image.mxcsr,
      xstate_bv: hex(blob.image.xstateBv),
      xcomp_bv: hex(blob.image.xcompBv),
    },
    directory: blob.directory.map((entry) => ({
      index: entry.index,
      name: parser.Component[entry.index] || null,
      size: entry.lenState,
      supervisor: entry.supervisor,
      align64: entry.align64,
      xfd: entry.xfd,
      standard_offset: entry.standardOffset,
      image_offset: entry.inImage ? entry.imageOffset : null,
      held: entry.held,
      state: entry.state === undefined ? null : Buffer.from(entry.state).toString("hex"),
    })),
    crc32c: blob.crc32c === undefined ? null : blob.crc32c,
  };
}

load().then(({ parser }) => {
  for (const file of process.argv.slice(2)) {
    let said;
    try {
      said = read(parser, file);
    } catch (error) {
      said = { refused: String(error.message || error) };
    }
    console.log(JSON.stringify(said));
  }
}).catch((error) => {
  console.error(error);
  process.exit(2);
});
