import assert from "node:assert/strict";
import { test } from "node:test";
import { RateMeter } from "../src/stats";

test("bit rates are in kbit/s, average and latest", () => {
  const meter = new RateMeter();
  meter.add(1000, 0);
  meter.add(2000, 125_000);
  assert.deepEqual([meter.average, meter.latest], [1000, 1000]);
  meter.add(3000, 125_000);
  assert.deepEqual([meter.average, meter.latest], [500, 0]);
});

test("a counter that starts anew does not give a negative rate", () => {
  const meter = new RateMeter();
  meter.add(1000, 1_000_000);
  meter.add(2000, 500);
  assert.deepEqual([meter.average, meter.latest], [0, 0]);
  meter.add(3000, 1500);
  assert.deepEqual([meter.average, meter.latest], [8, 8]);
});
