/**
 * The user name and the password of a proxy.
 *
 * They are compared as HMACs under a key of the process, so that neither the time nor the length of a comparison tells
 * anything about them. Whoever can connect may try: a password that the program chooses must be as hard to guess as
 * the one that is made here, which has 144 random bits.
 * @module
 */
import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto';

/** What a client of a proxy gives. */
export interface ProxyCredentials {
  readonly username: string;
  readonly password: string;
}

/** Returns a password that nobody can guess, which needs no quoting in a URL. */
export function randomPassword(): string {
  return randomBytes(RANDOM_BYTES).toString('base64url');
}

/** Returns a function that says whether both are right. */
export function credentialCheck({
  username,
  password,
}: ProxyCredentials): (username: Buffer, password: Buffer) => boolean {
  const key = randomBytes(KEY_BYTES);
  const digest = (text: string | Buffer): Buffer => createHmac('sha256', key).update(text).digest();
  const [rightName, rightPassword] = [digest(username), digest(password)];
  return (name, secret) => {
    const isName = timingSafeEqual(digest(name), rightName);
    const isPassword = timingSafeEqual(digest(secret), rightPassword);
    return isName && isPassword;
  };
}

const RANDOM_BYTES = 18;
const KEY_BYTES = 32;
