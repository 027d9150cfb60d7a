/**
 * The fragments of each datagram that have arrived, and the path of the first one.
 * @module
 */
import type { VerdictName } from '../../src/translator/verdict.ts';
import type { Fragment, IpHeader } from './headers.ts';
import { isSamePath, type Path, type Tables } from './tables.ts';

interface Piece {
  readonly from: number;
  readonly to: number;
  readonly isLast: boolean;
}

interface Datagram {
  readonly realm: string;
  readonly source: string;
  readonly destination: string;
  readonly since: number;
  readonly path: Path;
  readonly pieces: Piece[];
  /** Whether its fragments overlapped (RFC 5722), so that the rest is refused. */
  isSpoilt: boolean;
}

export class Fragments {
  /** Keyed by what the fragments of a datagram have in common; the oldest first. */
  readonly #datagrams = new Map<string, Datagram>();
  readonly #timeoutMs: number;
  readonly #most: number;

  constructor(timeoutMs: number, most: number) {
    this.#timeoutMs = timeoutMs;
    this.#most = most;
  }

  /** Why a first fragment does not pass, whatever it holds. */
  faultOfFirst(realm: string, ip: IpHeader, now: number): VerdictName | undefined {
    const datagram = this.#find(realm, ip, now);
    if (datagram === undefined) return undefined;
    if (datagram.pieces[0]!.to !== ip.fragment!.end) datagram.isSpoilt = true;
    return datagram.isSpoilt ? 'DropFragment' : undefined;
  }

  /** The path of a later fragment, or why it does not pass. */
  pathOfLater(realm: string, ip: IpHeader, now: number): Path | VerdictName {
    const datagram = this.#find(realm, ip, now);
    if (datagram === undefined) return 'DropFragmentOrphan';
    if (datagram.isSpoilt) return 'DropFragment';
    const piece = pieceOf(ip.fragment!);
    if (isWithin(datagram.pieces, piece)) return 'DropFragment';
    if (contradicts(datagram.pieces, piece)) {
      datagram.isSpoilt = true;
      return 'DropFragment';
    }
    if (holesOf([...datagram.pieces, piece]) > MOST_HOLES) return 'DropFragment';
    return datagram.path;
  }

  /** Records a first fragment that was forwarded. */
  open(realm: string, ip: IpHeader, path: Path, now: number): void {
    const key = keyOf(realm, ip);
    this.#datagrams.delete(key);
    const ofRealm = [...this.#datagrams].filter(([, datagram]) => datagram.realm === realm);
    if (ofRealm.length >= this.#most) this.#datagrams.delete(ofRealm[0]![0]);
    const { source, destination } = ip;
    const pieces = [pieceOf(ip.fragment!)];
    this.#datagrams.set(key, {
      realm,
      source,
      destination,
      since: now,
      path,
      pieces,
      isSpoilt: false,
    });
  }

  /** Records a later fragment that was forwarded. */
  add(realm: string, ip: IpHeader): void {
    const key = keyOf(realm, ip);
    const { pieces } = this.#datagrams.get(key)!;
    pieces.push(pieceOf(ip.fragment!));
    if (holesOf(pieces) === 0 && pieces.some(({ isLast }) => isLast)) this.#datagrams.delete(key);
  }

  /** Forgets datagrams whose path no longer exists. */
  keep(tables: Tables): void {
    for (const [key, { realm, source, destination, path }] of this.#datagrams) {
      if (!isSamePath(path, tables.path(realm, source, destination))) this.#datagrams.delete(key);
    }
  }

  #find(realm: string, ip: IpHeader, now: number): Datagram | undefined {
    const datagram = this.#datagrams.get(keyOf(realm, ip));
    return datagram && now - datagram.since <= this.#timeoutMs ? datagram : undefined;
  }
}

function keyOf(realm: string, { version, source, destination, protocol, fragment }: IpHeader) {
  const common = `${realm} ${source} ${destination} ${fragment!.identification}`;
  return version === 4 ? `${common} ${protocol}` : common;
}

function pieceOf({ offset, end, more }: Fragment): Piece {
  return { from: offset, to: end, isLast: !more };
}

/** Returns whether the piece has no new bytes. */
function isWithin(pieces: readonly Piece[], piece: Piece): boolean {
  let to = piece.from;
  for (const known of sorted(pieces)) if (known.from <= to) to = Math.max(to, known.to);
  return to >= piece.to;
}

function sorted(pieces: readonly Piece[]): Piece[] {
  return [...pieces].sort((a, b) => a.from - b.from);
}

/** Whether a piece overlaps others, ends behind the last one, or is the last one before others. */
function contradicts(pieces: readonly Piece[], piece: Piece): boolean {
  return pieces.some(
    (known) =>
      (piece.from < known.to && known.from < piece.to) ||
      (known.isLast && piece.to > known.to) ||
      (piece.isLast && known.to > piece.to)
  );
}

/** How many gaps there are in front of pieces; what comes behind them all is not known to be one. */
function holesOf(pieces: readonly Piece[]): number {
  return sorted(pieces).filter(({ from }, i, { [i - 1]: before }) => (before?.to ?? 0) < from)
    .length;
}

const MOST_HOLES = 8;
