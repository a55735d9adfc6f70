// Bundles an entry with React's JSX and Vue's components, as build tools do for their users.
// node bundle.mjs ENTRY OUTPUT
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";

import esbuild from "esbuild";
import { compileScript, parse } from "vue/compiler-sfc";

const vue = {
  name: "vue",
  setup(build) {
    build.onLoad({ filter: /\.vue$/ }, async ({ path }) => {
      const { descriptor, errors } = parse(await readFile(path, "utf8"), { filename: path });
      if (errors.length) return { errors: errors.map(({ message }) => ({ text: message })) };
      return { contents: compileScript(descriptor, { id: "page", inlineTemplate: true }).content };
    });
  },
};

const [entry, outfile] = process.argv.slice(2);
await esbuild.build({
  entryPoints: [entry],
  outfile,
  bundle: true,
  format: "esm",
  jsx: "automatic",
  nodePaths: [fileURLToPath(new URL("node_modules", import.meta.url))],
  plugins: [vue],
  define: {
    "process.env.NODE_ENV": '"development"', // StrictMode mounts twice
    __VUE_OPTIONS_API__: "true",
    __VUE_PROD_DEVTOOLS__: "false",
    __VUE_PROD_HYDRATION_MISMATCH_DETAILS__: "false",
  },
});
