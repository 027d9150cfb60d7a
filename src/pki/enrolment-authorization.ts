/**
 * Asks the program that uses the library whether a site may enrol. Only `undefined` admits the site.
 * @module
 */
import type { Socket } from 'node:net';
import { ApiMisuseError, EnrolmentError } from '../errors.ts';
import type { AuthorizeEnrolment, EnrolmentCandidate } from './enrolment-server-options.ts';

/**
 * Resolves if `authorize` admits the site.
 *
 * @param socket the connection on which the site waits for the answer
 * @param onFault receives what `authorize` has thrown, or an error if its result is neither undefined nor a string
 * @throws {EnrolmentError} with fault `not-authorized` if `authorize` refuses the site, throws, or has not decided
 *   before the connection ends.
 */
export async function authorizeEnrolment(
  authorize: AuthorizeEnrolment,
  candidate: EnrolmentCandidate,
  socket: Socket,
  onFault: (error: unknown) => void
): Promise<void> {
  let onClose = (): void => {};
  const ended = new Promise<never>((_resolve, reject) => {
    onClose = () => reject(notAuthorized(candidate, 'the connection ended before it was decided'));
    socket.once('close', onClose);
  });
  if (socket.closed) onClose();
  try {
    // `ask` reports to `onFault` itself, so a failure after the end of the connection is reported too.
    await Promise.race([ended, ask(authorize, candidate, onFault)]);
  } finally {
    socket.off('close', onClose);
  }
}

async function ask(
  authorize: AuthorizeEnrolment,
  candidate: EnrolmentCandidate,
  onFault: (error: unknown) => void
): Promise<void> {
  let reason: unknown;
  try {
    reason = await authorize(candidate);
    if (reason !== undefined && typeof reason !== 'string') {
      throw new ApiMisuseError(
        `authorize must return undefined or a reason in text, not a value of type ${typeof reason}`
      );
    }
  } catch (error) {
    onFault(error);
    throw notAuthorized(candidate, 'it could not be decided');
  }
  if (reason !== undefined) throw notAuthorized(candidate, printable(reason as string));
}

function notAuthorized({ site }: EnrolmentCandidate, reason: string): EnrolmentError {
  const text = `site "${site}" is not authorized to enrol`;
  return new EnrolmentError('not-authorized', reason === '' ? text : `${text}: ${reason}`);
}

/** Returns the text as one line of limited length without control characters. */
function printable(text: string): string {
  return text
    .slice(0, MAX_REASON_LENGTH)
    .replace(/[\p{C}\p{Zl}\p{Zp}]+/gu, ' ')
    .trim();
}

/** In UTF-16 units. */
const MAX_REASON_LENGTH = 300;
