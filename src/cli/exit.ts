/**
 * How a command ends: its exit code, and the one sentence that says why it did not succeed.
 * @module
 */
import { CommanderError } from 'commander';
import {
  AddressUnavailableError,
  ConfigError,
  ConflictError,
  EnrolmentError,
  NotFoundError,
  PassphraseError,
  PeerRefusedError,
  PoolExhaustedError,
  PresenceError,
  QuotaExceededError,
  VersionMismatchError,
} from '../errors.ts';

/** The exit codes of every command. */
export const ExitCode = {
  Done: 0,
  /** The machine, the network or a program is at fault. */
  Failed: 1,
  /** The command line or the configuration is wrong; the same command never succeeds. */
  Usage: 2,
  /** A gateway refuses the request. */
  Refused: 3,
  /** The gateway does not run, or is not ready yet; the same command may succeed later. */
  NotReady: 4,
} as const;
export type ExitCode = (typeof ExitCode)[keyof typeof ExitCode];

/** A command cannot do what it was asked to. */
export class CommandError extends PresenceError {
  readonly exitCode: ExitCode;

  constructor(exitCode: ExitCode, message: string, options?: ErrorOptions) {
    super('ERR_PRESENCE_COMMAND', message, options);
    this.exitCode = exitCode;
  }
}

/** Returns the error of a command line that is wrong. */
export function usageError(message: string, options?: ErrorOptions): CommandError {
  return new CommandError(ExitCode.Usage, message, options);
}

/** Returns the error of a command that has printed its result already, and whose exit code is part of the result. */
export function endedWith(exitCode: ExitCode): CommandError {
  return new CommandError(exitCode, '');
}

/** How a command ends that has thrown an error. */
export interface Ending {
  readonly exitCode: ExitCode;
  /** One sentence for the user, or the stack of a fault of this program; undefined if everything has been said. */
  readonly message: string | undefined;
}

/** Returns the exit code and the sentence of what a command has thrown. */
export function endingOf(error: unknown): Ending {
  if (error instanceof CommanderError) return endingOfCommander(error);
  if (error instanceof PresenceError) {
    return { exitCode: exitCodeOf(error), message: shortened(error.message) || undefined };
  }
  const message = error instanceof Error ? (error.stack ?? error.message) : String(error);
  return { exitCode: ExitCode.Failed, message };
}

function exitCodeOf(error: PresenceError): ExitCode {
  if (error instanceof CommandError) return error.exitCode;
  return OF_CODES.get(error.code) ?? ExitCode.Failed;
}

/** Commander throws for `--help` and `--version` too, after it has printed them. */
function endingOfCommander({ exitCode, code, message }: CommanderError): Ending {
  if (exitCode === 0) return { exitCode: ExitCode.Done, message: undefined };
  // A group of commands without a command: the help has been printed.
  if (code === 'commander.help') return { exitCode: ExitCode.Usage, message: undefined };
  const sentence = message.replace(/^error: /, '').replace(/\n\((.*)\)$/s, ' ($1)');
  return { exitCode: ExitCode.Usage, message: shortened(sentence) };
}

/** Returns a sentence that does not fill the terminal, whatever the argument or the path is that it quotes. */
function shortened(sentence: string): string {
  const words = sentence.replace(/\S{201,}/g, (word) => `${word.slice(0, 60)}...`);
  return words.length > MAX_SENTENCE ? `${words.slice(0, MAX_SENTENCE)}...` : words;
}

const MAX_SENTENCE = 1_000;

/** Keyed by the code of an error, which survives between processes; every other code means `Failed`. */
const OF_CODES: ReadonlyMap<string, ExitCode> = new Map<string, ExitCode>([
  [new ConfigError('', '').code, ExitCode.Usage],
  [new PassphraseError('missing', '').code, ExitCode.Usage],
  [new PassphraseError('wrong', '').code, ExitCode.Usage],
  [new EnrolmentError('missing', '').code, ExitCode.Usage],
  [new EnrolmentError('malformed', '').code, ExitCode.Usage],
  [new EnrolmentError('unknown', '').code, ExitCode.Refused],
  [new EnrolmentError('expired', '').code, ExitCode.Refused],
  [new EnrolmentError('used', '').code, ExitCode.Refused],
  [new EnrolmentError('wrong-site', '').code, ExitCode.Refused],
  [new EnrolmentError('not-authorized', '').code, ExitCode.Refused],
  [new PeerRefusedError('').code, ExitCode.Refused],
  // What a gateway answers to a request that is well formed.
  [new NotFoundError('').code, ExitCode.Refused],
  [new ConflictError('').code, ExitCode.Refused],
  [new VersionMismatchError('').code, ExitCode.Refused],
  [new AddressUnavailableError('').code, ExitCode.Refused],
  [new PoolExhaustedError('').code, ExitCode.Refused],
  [new QuotaExceededError('').code, ExitCode.Refused],
]);
