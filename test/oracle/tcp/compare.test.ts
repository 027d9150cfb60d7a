/** The comparison with the oracle finds no fault with an oracle, and finds mistakes that are made on purpose. */
import { describe, expect, test } from 'vitest';
import type { Random } from '../../support/random.ts';
import { ABORT } from './calls.ts';
import { type Comparison, compare } from './compare.ts';
import { OracleImplementation } from './oracle-implementation.ts';
import { has, lengthOf, type Segment } from './segment.ts';
import { plus } from './sequence.ts';
import { type Choices, flushQueues, type State } from './tcb.ts';

const TIME_WAIT_MS = 60_000;

function choicesOf(random: Random): Partial<Choices> {
  let iss = random.below(2 ** 32);
  return {
    selectIss: () => {
      iss = plus(iss, 1_000_000);
      return iss;
    },
    receiveBuffer: random.pick([100, 4000, 60_000]),
    usesTimestamps: true,
    windowScale: 3,
  };
}

const COMPARISON: Comparison = {
  choices: { usesTimestamps: true, windowScale: 3 },
  throttleMs: 0,
  steps: 60,
  timeWaitMs: TIME_WAIT_MS,
};

describe('the comparison', () => {
  test('finds no fault with an oracle, in any state', () => {
    const states = new Set<State>();
    for (let seed = 1; seed <= 400; seed++) {
      const outcome = compare(
        seed,
        (random) => new OracleImplementation(choicesOf(random), TIME_WAIT_MS),
        COMPARISON
      );
      for (const state of outcome.states) states.add(state);
    }
    expect(states.size).toBe(11);
  });

  class Silent extends OracleImplementation {
    override arrives(segment: Segment): void {
      if (has(segment, 'RST')) return;
      super.arrives(segment);
    }
  }
  class DropsText extends OracleImplementation {
    override arrives(segment: Segment): void {
      super.arrives(segment.text.length > 900 ? { ...segment, text: [] } : segment);
    }
  }
  class ResetsTooMuch extends OracleImplementation {
    override arrives(segment: Segment): void {
      super.arrives(segment);
      if (has(segment, 'SYN') && this.tcb.state === 'ESTABLISHED') ABORT(this.tcb);
    }
  }
  class AcceptsBlindAck extends OracleImplementation {
    override arrives(segment: Segment): void {
      const { SND, state } = this.tcb;
      super.arrives(state === 'ESTABLISHED' ? { ...segment, ACK: SND.UNA } : segment);
    }
  }
  class MovesWindowBack extends OracleImplementation {
    override receive(count: number): readonly number[] {
      const octets = super.receive(count);
      this.tcb.RCV.WND = Math.min(this.tcb.RCV.WND, 50);
      return octets;
    }
  }
  class ForgetsHeld extends OracleImplementation {
    override arrives(segment: Segment): void {
      super.arrives(segment);
      this.tcb.held = [];
    }
  }
  class NeverAcknowledges extends OracleImplementation {
    override sent(): readonly Segment[] {
      return super.sent().filter((each) => lengthOf(each) > 0 || has(each, 'RST'));
    }
  }
  class IgnoresTheSendWindow extends OracleImplementation {
    override arrives(segment: Segment): void {
      super.arrives({ ...segment, WND: 65_535 });
    }
  }
  class ForgetsFin extends OracleImplementation {
    override close(): void {
      super.close();
      if (this.tcb.state === 'FIN-WAIT-1') flushQueues(this.tcb);
      this.tcb.state = 'FIN-WAIT-2';
    }
  }
  class SwapsOctets extends OracleImplementation {
    override receive(count: number): readonly number[] {
      const octets = super.receive(count);
      return octets.length > 50 ? [...octets].reverse() : octets;
    }
  }
  class AnswersResets extends OracleImplementation {
    override arrives(segment: Segment): void {
      const { state } = this.tcb;
      super.arrives(segment);
      if (has(segment, 'RST') && state === 'ESTABLISHED' && this.tcb.emissions.length === 0) {
        super.arrives({ ...segment, SEQ: plus(this.tcb.RCV.NXT, -10), CTL: ['ACK'], text: [1] });
      }
    }
  }

  test.each([
    Silent,
    DropsText,
    ResetsTooMuch,
    AcceptsBlindAck,
    MovesWindowBack,
    ForgetsHeld,
    NeverAcknowledges,
    IgnoresTheSendWindow,
    ForgetsFin,
    SwapsOctets,
    AnswersResets,
  ])('finds the mistake of %o', (Mistaken) => {
    const run = () => {
      for (let seed = 1; seed <= 400; seed++) {
        compare(seed, (random) => new Mistaken(choicesOf(random), TIME_WAIT_MS), COMPARISON);
      }
    };
    expect(run).toThrow(/^seed \d+: /);
  });

  test.each([
    ['an implementation without the checks of RFC 5961', { isRfc5961: false }],
    ['one that does not protect against wrapped sequence numbers', { now: () => 0 }],
  ] as const)('finds the mistake of %s', (_, wrong) => {
    class Mistaken extends OracleImplementation {
      override arrives(segment: Segment): void {
        if ('now' in wrong) this.tcb.TS.recentAt = -1e12;
        super.arrives(segment);
      }
    }
    const run = () => {
      for (let seed = 1; seed <= 400; seed++) {
        compare(
          seed,
          (random) => new Mistaken({ ...choicesOf(random), ...wrong }, TIME_WAIT_MS),
          COMPARISON
        );
      }
    };
    expect(run).toThrow(/^seed \d+: /);
  });
});
