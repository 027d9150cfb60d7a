/**
 * Model of a site that is revoked at one machine, while another machine joins and the site's edge dials there. The
 * machine that joins reads the store, registers, and claims. Packets pass there while it has a tunnel of the site and
 * has not seen the revocation.
 * @module
 */
import { type Model, type Step, step } from './explore.ts';

export interface RevocationRules {
  /** A machine registers, then reads; the draft read first. */
  readonly registerFirst: boolean;
}

interface State {
  revoked: boolean;
  /** What the machine that joins has done and has. */
  seen: boolean;
  read: boolean;
  registered: boolean;
  key: boolean;
  tun: boolean;
  confirmed: boolean;
  /** For whom the revocation waits. */
  waits: 'M1' | 'nobody' | null;
  receipt: boolean;
}

export function revocation({ registerFirst }: RevocationRules): Model<State> {
  return {
    init: {
      revoked: false,
      seen: false,
      read: false,
      registered: false,
      key: false,
      tun: false,
      confirmed: false,
      waits: null,
      receipt: false,
    },
    bad: (s) => (s.receipt && s.tun && !s.seen ? 'a packet passes after the receipt' : undefined),
    next(s) {
      const out: Step<State>[] = [];
      const on = (name: string, isPossible: boolean, change: (c: State) => unknown): void => {
        if (isPossible) out.push(...step(name, s, change));
      };
      on('M1 registers', !s.registered && (registerFirst || s.read), (c) => {
        c.registered = true;
      });
      on('M1 reads', !s.read && (!registerFirst || s.registered), (c) => {
        c.read = true;
        c.seen = c.revoked;
      });
      on('M1 claims', s.read && s.registered && !s.key && !s.seen, (c) => {
        c.key = true;
      });
      on('M1 sends WELCOME', s.key && !s.tun && !s.seen, (c) => {
        c.tun = true;
      });
      on('the site is revoked', !s.revoked, (c) => {
        c.revoked = true;
        c.waits = s.registered ? 'M1' : 'nobody';
      });
      on('M1 sees it', s.read && s.revoked && !s.seen, (c) => {
        c.seen = true;
        c.tun = false;
      });
      on('M1 confirms', s.seen && s.registered && !s.confirmed, (c) => {
        c.confirmed = true;
      });
      on('receipt', s.revoked && !s.receipt && (s.waits === 'nobody' || s.confirmed), (c) => {
        c.receipt = true;
      });
      return out;
    },
  };
}
