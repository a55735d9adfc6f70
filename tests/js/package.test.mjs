// The npm package: what is in it, that it installs, its types, its size, and Node without WebSocket.
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";

import { build } from "esbuild";
import ts from "typescript";

import { Imgo, ImgoError } from "../../push/static/push/imgo.js";

const here = dirname(fileURLToPath(import.meta.url));
const root = join(here, "..", "..");
const pack = join(root, "push", "static", "push");
const meta = JSON.parse(readFileSync(join(pack, "package.json"), "utf8"));
const npmCli = join(dirname(process.execPath), "..", "lib", "node_modules", "npm", "bin", "npm-cli.js");

let home; // a project of somebody else's, with the package installed

/** npm, which asks no registry. */
function npm(directory, ...words) {
  const environment = { ...process.env, npm_config_cache: join(home, "cache") };
  const options = { cwd: directory, env: environment, encoding: "utf8", stdio: "pipe" };
  return execFileSync(process.execPath, [npmCli, ...words, "--offline", "--loglevel=error"], options);
}

before(() => {
  home = mkdtempSync(join(tmpdir(), "imgo-package-"));
  writeFileSync(join(home, "package.json"), '{"type": "module", "private": true}');
  const [{ filename }] = JSON.parse(npm(pack, "pack", "--json", "--pack-destination", home));
  npm(home, "install", "--no-audit", "--no-fund", join(home, filename));
});
after(() => rmSync(home, { recursive: true }));

describe("the package", () => {
  test("has the client in it, and nothing of the server's pages", () => {
    const [{ files, name }] = JSON.parse(npm(pack, "pack", "--dry-run", "--json"));
    assert.equal(name, "imgo-client");
    assert.deepEqual(files.map(({ path }) => path).sort(), [
      "LICENSE", "README.md", "imgo-hub.js", "imgo-notifications.d.ts", "imgo-notifications.js",
      "imgo-presence.js", "imgo-service-worker.js", "imgo-sse.js", "imgo-tabs.js", "imgo-ways.js",
      "imgo.d.ts", "imgo.js", "package.json", "websocket-node.js",
    ]);
  });

  test("needs nothing", () => {
    const kinds = ["dependencies", "peerDependencies", "optionalDependencies", "scripts"];
    assert.deepEqual(kinds.filter((kind) => kind in meta), []);
  });

  test("has the project's licence", () => {
    const [ours, theirs] = [root, pack].map((path) => readFileSync(join(path, "LICENSE"), "utf8"));
    assert.equal(ours, theirs);
  });

  test("the client is less than 8,000 bytes gzipped, as it is served", () => {
    const size = execFileSync("gzip", ["-9", "-c", join(pack, "imgo.js")]).length;
    assert.ok(size < 8000, `${size} bytes`);
  });

  test("its modules import one another when they are needed, by names that tools can read", () => {
    const imports = (name) => {
      const text = readFileSync(join(pack, name), "utf8");
      assert.doesNotMatch(text, /^\s*import\b|^export .* from/m);
      return ts.preProcessFile(text).importedFiles.map(({ fileName }) => fileName);
    };
    assert.deepEqual(imports("imgo.js"), ["./imgo-ways.js", "./imgo-presence.js"]);
    const further = ["./imgo-tabs.js", "./imgo-sse.js", "./websocket-node.js"];
    assert.deepEqual(imports("imgo-ways.js"), further);
    assert.deepEqual(imports("imgo-tabs.js"), ["./imgo-hub.js"]);
    const last = ["imgo-hub.js", "imgo-sse.js", "imgo-presence.js", "imgo-notifications.js"];
    assert.deepEqual(last.map(imports), [[], [], [], []]);
  });

  test("a bundler puts all of it into files of its own, and leaves Node's part out", async () => {
    const outdir = join(home, "bundle");
    await build({
      stdin: { contents: 'import { Imgo } from "imgo-client"; new Imgo("/sub");', resolveDir: home },
      bundle: true,
      splitting: true,
      format: "esm",
      platform: "browser",
      outdir,
    });
    const names = readdirSync(outdir).filter((name) => !/^(stdin|chunk)/.test(name));
    const first = ["imgo-hub", "imgo-presence", "imgo-sse"];
    const parts = [...first, "imgo-tabs", "imgo-ways", "websocket-node"];
    assert.deepEqual(names.map((name) => name.replace(/-\w+\.js$/, "")).sort(), parts);
    const text = names.map((name) => readFileSync(join(outdir, name), "utf8")).join("");
    assert.doesNotMatch(text, /node:crypto/);
  });

  test("what its README shows is valid", () => {
    const blocks = readFileSync(join(pack, "README.md"), "utf8").matchAll(/^```js\n(.*?)^```/gms);
    const texts = [...blocks].map(([, text]) => text);
    assert.ok(texts.length > 0);
    for (const text of texts) {
      const { diagnostics } = ts.transpileModule(text, {
        reportDiagnostics: true,
        compilerOptions: { module: ts.ModuleKind.ESNext, target: ts.ScriptTarget.ESNext },
      });
      assert.deepEqual(diagnostics, []);
    }
  });
});

describe("where there is no WebSocket, as in Node 20", () => {
  const run = (program) =>
    spawnSync(
      process.execPath,
      ["--no-experimental-websocket", "--input-type=module", "-e", program],
      { cwd: home, encoding: "utf8" },
    );

  test("the package brings its own", () => {
    const { stdout, stderr } = run(`
      import { Imgo } from "imgo-client";
      const client = new Imgo("ws://127.0.0.1:1/sub", { token: "abc" });
      client.on("close", ({ code, reason, willReconnect }) => {
        console.log(typeof WebSocket, code, reason, willReconnect);
        process.exit();
      }).connect();
    `);
    assert.equal(stderr, "");
    assert.equal(stdout, "undefined 1006 connect ECONNREFUSED 127.0.0.1:1 true\n");
  });

  test("it is loaded when it is needed, and not before", () => {
    const { stdout, stderr } = run(`
      import { registerHooks } from "node:module";
      registerHooks({ load(url, context, next) {
        if (url.includes("imgo-client")) console.log(url.split("/").at(-1));
        return next(url, context);
      } });
      const { Imgo } = await import("imgo-client");
      const client = new Imgo("ws://127.0.0.1:1/sub", { WebSocket: class { send() {} close() {} } });
      client.connect().close();
    `);
    assert.equal(stderr, "");
    assert.equal(stdout, "imgo.js\n");
  });
});

describe("the types", () => {
  const check = (options) => {
    mkdirSync(join(home, "src"), { recursive: true });
    cpSync(join(here, "use.ts"), join(home, "src", "use.ts"));
    const strict = ["--noEmit", "--strict", "--target", "es2022", ...options];
    const tsc = join(here, "node_modules", "typescript", "bin", "tsc");
    const { stdout } = spawnSync(process.execPath, [tsc, ...strict, "src/use.ts"], {
      cwd: home,
      encoding: "utf8",
    });
    assert.equal(stdout, "");
  };

  test("are right for a program in a browser", () =>
    check(["--module", "esnext", "--moduleResolution", "bundler", "--lib", "es2022,dom"]));

  test("are right for a program in Node", () =>
    check(["--module", "nodenext", "--lib", "es2022,dom", "--exactOptionalPropertyTypes"]));

  test("tell all that the client has, and nothing more", () => {
    const file = join(pack, "imgo.d.ts");
    const source = ts.createSourceFile(file, readFileSync(file, "utf8"), ts.ScriptTarget.Latest);
    const classes = Object.fromEntries(
      source.statements.filter(ts.isClassDeclaration).map(({ name, members }) => [
        name.text,
        members.map((member) => member.name?.text ?? "constructor").sort(),
      ]),
    );
    const of = (prototype) => Object.getOwnPropertyNames(prototype).sort();
    assert.deepEqual(classes.Imgo, of(Imgo.prototype));
    const error = new ImgoError("closed", "why");
    const own = ["constructor", ...Object.keys(error)].sort();
    assert.deepEqual(classes.ImgoError, own);
    const { members } = source.statements.find(({ name }) => name?.text === "Room");
    const room = new Imgo("ws://x.test/sub").room("a");
    assert.deepEqual(["constructor", ...members.map(({ name }) => name.text)].sort(), of(Object.getPrototypeOf(room)));
  });

  test("name the options that the client reads", () => {
    const file = join(pack, "imgo.d.ts");
    const source = ts.createSourceFile(file, readFileSync(file, "utf8"), ts.ScriptTarget.Latest);
    const options = source.statements.find(({ name }) => name?.text === "Options");
    const names = options.members.map(({ name }) => name.text).sort();
    const read = new Set();
    const spy = new Proxy({}, { get: (_, name) => void read.add(name) });
    const client = new Imgo("ws://x.test/sub", spy);
    assert.deepEqual([...read].sort(), names);
    const ofRooms = source.statements.find(({ name }) => name?.text === "RoomOptions");
    const named = ofRooms.members.map(({ name }) => [name.text, undefined]);
    client.room("a", Object.fromEntries(named)); // refuses any that it does not read
    assert.deepEqual(named.map(([name]) => name).sort(), ["persist", "position", "rewind"]);
  });
});
