// node test.mjs: bundles the tests beside the sources and runs them.
import { build } from "esbuild";
import { spawnSync } from "node:child_process";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

const tests = (await readdir("src")).filter((name) => name.endsWith(".test.ts"));
const folder = await mkdtemp(join(tmpdir(), "jobmon-ui-"));
try {
  await build({
    entryPoints: tests.map((name) => `src/${name}`),
    outdir: folder,
    outExtension: { ".js": ".mjs" },
    bundle: true,
    platform: "node",
    format: "esm",
    target: ["node18"],
    jsx: "automatic",
    jsxImportSource: "preact",
    logLevel: "warning",
  });
  process.exitCode = spawnSync(process.execPath, ["--test", ...tests.map((name) => join(folder, name.replace(/ts$/, "mjs")))], { stdio: "inherit" }).status ?? 1;
} finally {
  await rm(folder, { recursive: true });
}
