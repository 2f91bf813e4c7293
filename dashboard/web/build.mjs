// Bundles the page and writes OUT/page.rs, the list of its files with compressed copies and ETags. Run by dashboard/build.rs.
// usage: node build.mjs OUT
import { build } from "esbuild";
import { createHash } from "node:crypto";
import { mkdir, readFile, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";

const out = process.argv[2];
const dist = join(out, "dist");
await mkdir(dist, { recursive: true });

const common = { bundle: true, minify: true, format: "esm", target: ["es2022"], legalComments: "none", logLevel: "warning", charset: "utf8" };
await build({
  ...common,
  entryPoints: ["src/app.tsx"],
  outfile: join(dist, "app.js"),
  jsx: "automatic",
  jsxImportSource: "preact",
  external: ["/assets/*"],
});
// hls.js is a separate file: the page loads it when a camera is opened.
await build({ ...common, entryPoints: { hls: "src/hls.ts" }, outdir: dist });
await build({ ...common, entryPoints: ["static/app.css"], outfile: join(dist, "app.css"), format: undefined });

// Returns the licences of the libraries that are distributed with the page.
async function licences() {
  const parts = [];
  for (const name of ["preact", "hls.js"]) {
    const folder = join("node_modules", name);
    const { version, license } = JSON.parse(await readFile(join(folder, "package.json"), "utf8"));
    const file = (await readdir(folder)).find((entry) => /^licen[cs]e/i.test(entry));
    parts.push(`${name} ${version} (${license})\n\n${file ? await readFile(join(folder, file), "utf8") : ""}`);
  }
  return Buffer.from(parts.join(`\n${"=".repeat(80)}\n`));
}

const files = [
  ["/", "text/html; charset=utf-8", await readFile("static/index.html")],
  ["/assets/app.js", "text/javascript; charset=utf-8", await readFile(join(dist, "app.js"))],
  ["/assets/app.css", "text/css; charset=utf-8", await readFile(join(dist, "app.css"))],
  ["/assets/hls.js", "text/javascript; charset=utf-8", await readFile(join(dist, "hls.js"))],
  ["/assets/hls.worker.js", "text/javascript; charset=utf-8", await readFile("node_modules/hls.js/dist/hls.worker.js")],
  ["/assets/icon.svg", "image/svg+xml", await readFile("static/icon.svg")],
  ["/assets/licences.txt", "text/plain; charset=utf-8", await licences()],
];

const entries = [];
for (const [path, type, plain] of files) {
  const name = path === "/" ? "index.html" : path.slice("/assets/".length);
  const etag = createHash("sha256").update(plain).digest("hex").slice(0, 32);
  const brotli = brotliCompressSync(plain, { params: { [constants.BROTLI_PARAM_QUALITY]: 11 } });
  await writeFile(join(dist, name), plain);
  await writeFile(join(dist, `${name}.gz`), gzipSync(plain, { level: 9 }));
  await writeFile(join(dist, `${name}.br`), brotli);
  const bytes = (suffix) => `include_bytes!(concat!(env!("OUT_DIR"), "/dist/${name}${suffix}"))`;
  entries.push(
    `    File { path: ${JSON.stringify(path)}, content_type: ${JSON.stringify(type)}, etag: "\\"${etag}\\"", ` +
      `plain: ${bytes("")}, gzip: ${bytes(".gz")}, brotli: ${bytes(".br")} },`,
  );
}
await writeFile(join(out, "page.rs"), `/// The files of the page.\npub static FILES: &[File] = &[\n${entries.join("\n")}\n];\n`);
