/**
 * Runs before each test file: gives `vi.waitFor` and `vi.waitUntil` a deadline that also a busy machine keeps. Their
 * own is 1 s, and a machine that runs many tests at once may take longer for a handshake.
 */
import { vi } from 'vitest';

const DEADLINE_MS = 20_000;

type Options = Exclude<Parameters<typeof vi.waitFor>[1], number>;

const withDeadline = (options: Options | number = {}): Options | number =>
  typeof options === 'number' ? options : { timeout: DEADLINE_MS, ...options };

const { waitFor, waitUntil } = vi;
vi.waitFor = (callback, options) => waitFor(callback, withDeadline(options));
vi.waitUntil = (callback, options) => waitUntil(callback, withDeadline(options));
