// Checks custom resources as strictly as an API server would: node crds.mjs NODE_MODULES <objects.json
//
// Types and validators are those that the kubernetes-models packages have, made of the operators' own sources. The
// validators know which values fit, the types, by the compiler's rule for literals, which keys there are. Prints what
// is wrong as JSON: [[index of the object, what is wrong], …]
import { mkdtempSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const PACKAGES = {
  "monitoring.coreos.com": "prometheus-operator",
  "keda.sh": "keda",
  "gateway.networking.k8s.io": "gateway-api",
};

const modules = resolve(process.argv[2]);
const require = createRequire(join(modules, "here.js"));
const ts = require("typescript");
const objects = JSON.parse(readFileSync(0, "utf8"));
const wrong = [];

const named = objects.map(({ apiVersion, kind }) => {
  const [group, version] = apiVersion.split("/");
  return `@kubernetes-models/${PACKAGES[group]}/${group}/${version}/${kind}`;
});

for (const [index, object] of objects.entries()) {
  const model = await import(pathToFileURL(join(modules, `${named[index]}.js`)));
  try {
    new model[object.kind](object).validate();
  } catch (error) {
    wrong.push([index, error.message]);
  }
}

const folder = mkdtempSync(join(tmpdir(), "crds-"));
try {
  symlinkSync(modules, join(folder, "node_modules"));
  const file = join(folder, "objects.ts");
  // An object a line, so that the line says which one it is.
  const source = objects
    .map((object, i) => `export const o${i}: import("${named[i]}").I${object.kind} = ${JSON.stringify(object)};`)
    .join("\n");
  const options = {
    noEmit: true,
    strict: true,
    skipLibCheck: true,
    types: [],
    // Nothing of a browser.
    lib: ["lib.es2022.d.ts"],
    target: ts.ScriptTarget.ES2022,
    module: ts.ModuleKind.ESNext,
    moduleResolution: ts.ModuleResolutionKind.Bundler,
  };
  const host = ts.createCompilerHost(options);
  const read = host.getSourceFile;
  host.getSourceFile = (name, ...rest) =>
    name === file ? ts.createSourceFile(name, source, ts.ScriptTarget.ES2022, true) : read(name, ...rest);
  const program = ts.createProgram([file], options, host);
  for (const { file: where, start, messageText } of ts.getPreEmitDiagnostics(program)) {
    const line = where?.fileName === file ? where.getLineAndCharacterOfPosition(start).line : -1;
    wrong.push([line, ts.flattenDiagnosticMessageText(messageText, " ")]);
  }
} finally {
  rmSync(folder, { recursive: true });
}
console.log(JSON.stringify(wrong));
