// Compiles xferry_blob.ksy and prints what it reads in each blob as JSON.
//
//     npm install kaitai-struct-compiler kaitai-struct js-yaml
//     NODE_PATH=node_modules node read_blob.js blob.bin
//
// A blob that the description refuses, or whose components do not lie in its
// image, prints {"refused": why} in its place, and the exit status is 1.
"use strict";

const files = process.argv.slice(2);
if (files.length === 0) {
  console.error("usage: read_blob.js FILE...");
  process.exit(2);
}

const fs = require("fs");
const path = require("path");
const vm = require("vm");
const compiler = require("kaitai-struct-compiler");
const yaml = require("js-yaml");
const KaitaiStream = require("kaitai-struct/KaitaiStream");

const hex = (mask) =>
  "0x" + ((BigInt(mask.hi) << 32n) | BigInt(mask.lo)).toString(16);

const hex32 = (value) => "0x" + value.toString(16);

// Before any byte of a component is read; the rules' names are the book's.
function check(blob) {
  if (!blob.directoryComplete)
    throw new Error("blob-directory: the directory does not describe what the policy has");
  if (!blob.compacted)
    throw new Error("xcomp-bv-bit-63: the image is not compacted");
  if (!blob.layoutDescribed)
    throw new Error("xcomp-bv-policy: the image is laid out for what the directory has not");
  if (!blob.heldLaidOut)
    throw new Error("xstate-bv-xcomp-bv: the image holds what it is not laid out for");
  if (blob.componentsEnd !== blob.header.imageLen)
    throw new Error(
      `image-length: components end at ${blob.componentsEnd}, the image at ${blob.header.imageLen}`);
}

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
  check(blob);
  return {
    version: header.version,
    total_len: header.totalLen,
    incompatible: hex32(header.incompatible),
    xstate_mask: hex(header.xstateMask),
    xcr0: hex(header.xcr0),
    xss: hex(header.xss),
    xfd: hex(header.xfd),
    xfd_err: hex(header.xfdErr),
    accum: hex(header.accum),
    xcomp_bv: hex(header.xcompBv),
    image: {
      bytes: header.imageLen,
      fcw: hex32(blob.image.fcw),
      mxcsr: hex32(blob.image.mxcsr),
      xstate_bv: hex(blob.image.xstateBv),
      xcomp_bv: hex(blob.image.xcompBv),
    },
    directory: blob.directory.map((entry) => ({
      index: entry.index,
      name: (parser.Component[entry.index] || "").toLowerCase() || null,
      size: entry.lenState,
      supervisor: entry.supervisor,
      align64: entry.align64,
      xfd: entry.xfd,
      standard_offset: entry.standardOffset,
      image_offset: entry.inImage ? entry.imageOffset : null,
      held: entry.held,
      state: entry.state === undefined ? null : Buffer.from(entry.state).toString("hex"),
    })),
    crc32c: blob.crc32c === undefined ? null : hex32(blob.crc32c),
  };
}

load().then(({ parser }) => {
  for (const file of files) {
    let said;
    try {
      said = read(parser, file);
    } catch (error) {
      said = { refused: String(error.message || error) };
      process.exitCode = 1;
    }
    console.log(JSON.stringify(said));
  }
}).catch((error) => {
  console.error(error);
  process.exit(2);
});
