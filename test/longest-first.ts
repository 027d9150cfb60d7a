/**
 * The order in which the test files run: those that take longest come first, so that at the end no worker has a long one
 * left while the others have nothing to do. A new checkout knows no durations, so `projects.ts` names these files.
 * @module
 */
import { relative } from 'node:path';
import { BaseSequencer, type TestSpecification } from 'vitest/node';
import { longest } from './projects.ts';

export class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const rankOf = ({ moduleId }: TestSpecification): number => {
      const rank = longest.indexOf(relative(this.ctx.config.root, moduleId));
      return rank < 0 ? longest.length : rank;
    };
    const groupOf = ({ project }: TestSpecification): number => project.config.sequence.groupOrder;
    // The sort is stable: the other files stay in the order of vitest, which puts those of a project together.
    return (await super.sort(files)).sort(
      (a, b) => groupOf(a) - groupOf(b) || rankOf(a) - rankOf(b)
    );
  }
}
