/**
 * Secrets that are texts: PEM and JSON.
 * @module
 */
import { EnvironmentError } from '../errors.ts';
import type { Secrets } from '../store/index.ts';

/** Returns a secret; undefined if it does not exist. @throws {EnvironmentError} if it cannot be read. */
export async function readSecret(secrets: Secrets, name: string): Promise<string | undefined> {
  const bytes = await secrets.get(name);
  return bytes && Buffer.from(bytes).toString();
}

/** Returns a secret. @throws {EnvironmentError} if it does not exist or cannot be read. */
export async function requireSecret(secrets: Secrets, name: string): Promise<string> {
  const text = await readSecret(secrets, name);
  if (text !== undefined) return text;
  throw new EnvironmentError(
    `the file ${locationOf(secrets, name)} cannot be read: it does not exist`
  );
}

export function bytesOf(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

/** Returns where a secret is stored, for messages. */
export function locationOf(secrets: Secrets, name: string): string {
  return secrets.locate?.(name) ?? name;
}
