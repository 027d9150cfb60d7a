import { expect, test } from 'vitest';
import { problemOf } from '../../src/admin/problem.ts';
import { AllocatorUnavailableError } from '../../src/control/index.ts';
import {
  StoreDoubtError,
  StoreError,
  StoreReplacedError,
  StoreUnavailableError,
} from '../../src/errors.ts';

test.each([
  StoreError,
  StoreUnavailableError,
  StoreDoubtError,
  StoreReplacedError,
  AllocatorUnavailableError,
])('%o is no fault of the gateway, but of what it needs (503)', (Kind) => {
  expect(problemOf(new Kind('no answer'))).toMatchObject({ status: 503, detail: 'no answer' });
});
