// What every Node driver is made of: options, JSON lines, one deadline for all, an orderly end.

/** Options as `--name value`; a name without a value is true. `known` maps each name to its default. */
export function options(known) {
  const found = { ...known };
  const words = process.argv.slice(2);
  while (words.length > 0) {
    const word = words.shift();
    const name = word.replace(/^--/, "").replaceAll(/-(.)/g, (_, letter) => letter.toUpperCase());
    if (!word.startsWith("--") || !(name in known)) {
      process.stderr.write(`unknown option ${word}; known: ${Object.keys(known).join(", ")}\n`);
      process.exit(2);
    }
    const value = words.length > 0 && !words[0].startsWith("--") ? words.shift() : true;
    found[name] = typeof known[name] === "number" ? Number(value) : value;
  }
  return found;
}

export function emit(event, fields = {}) {
  process.stdout.write(`${JSON.stringify({ event, ...fields })}\n`);
}

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Waits until `check` returns something true; `undefined` when `ms` pass first. */
export async function until(check, ms, everyMs = 100) {
  const end = Date.now() + ms;
  for (;;) {
    const value = await check();
    if (value) return value;
    if (Date.now() > end) return undefined;
    await sleep(everyMs);
  }
}

/** Resolves after `seconds`, or for 0 when standard input is closed. */
export function lasting(seconds) {
  if (seconds > 0) return sleep(seconds * 1000);
  return new Promise((resolve) => {
    process.stdin.on("end", resolve).on("close", resolve).resume();
  });
}

const cleanups = [];

/** `action` runs once at the end, whatever the end is. Last in, first out. */
export function atEnd(action) {
  cleanups.push(action);
}

async function cleanUp() {
  while (cleanups.length > 0) {
    await Promise.race([
      Promise.resolve()
        .then(cleanups.pop())
        .catch(() => undefined),
      sleep(5000),
    ]);
  }
}

/**
 * Runs a driver. `main` returns the fields of its result; `ok: false` or an exception is a failure.
 * After `deadlineS` the driver fails by itself, so that no caller hangs.
 */
export async function run(deadlineS, main) {
  const finish = async (fields) => {
    await cleanUp();
    process.stdout.write(`${JSON.stringify({ event: "result", ...fields })}\n`, () => process.exit(fields.ok ? 0 : 1));
  };
  const timer = setTimeout(() => void finish({ ok: false, why: `not done after ${deadlineS} s` }), deadlineS * 1000);
  for (const signal of ["SIGTERM", "SIGINT"]) {
    process.on(signal, () => void finish({ ok: false, why: `ended by ${signal}` }));
  }
  try {
    const fields = await main();
    clearTimeout(timer);
    await finish({ ok: true, ...fields });
  } catch (error) {
    clearTimeout(timer);
    await finish({ ok: false, why: error instanceof Error ? error.message : String(error) });
  }
}
