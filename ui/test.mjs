// node test.mjs: bundles the tests beside the sources and runs them.
import { build } from "esbuild";
import { spawnSync } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

const folder = await mkdtemp(join(tmpdir(), "jobmon-ui-"));
try {
  await build({
    entryPoints: ["src/words.test.ts"],
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
  process.exitCode = spawnSync(process.execPath, ["--test", join(folder, "words.test.mjs")], { stdio: "inherit" }).status ?? 1;
} finally {
  await rm(folder, { recursive: true });
}
