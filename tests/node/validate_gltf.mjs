// Prints the Khronos glTF-Validator's report of one file as JSON.
// Usage: node validate_gltf.mjs FILE
import { readFileSync } from "node:fs";
import validator from "gltf-validator";

const bytes = new Uint8Array(readFileSync(process.argv[2]));
const report = await validator.validateBytes(bytes, { maxIssues: 0, writeTimestamp: false });
process.stdout.write(JSON.stringify(report));
