// Adds up the reports of all test runs and ends with the plain line. A skipped test is a failure here.
import { readFileSync } from 'node:fs';

const total = { passed: 0, failed: 0, skipped: 0 };
for (const file of process.argv.slice(2)) {
  const report = JSON.parse(readFileSync(file, 'utf8'));
  total.passed += report.numPassedTests;
  total.failed += report.numFailedTests + (report.success || report.numFailedTests ? 0 : 1);
  total.skipped += report.numPendingTests + report.numTodoTests;
  for (const { name, assertionResults } of report.testResults) {
    for (const { status, fullName, failureMessages = [] } of assertionResults) {
      if (status === 'passed') continue;
      console.log(`${status}: ${name}: ${fullName}`);
      for (const message of failureMessages) console.log(message.slice(0, 2000));
    }
  }
}
console.log(`${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped`);
process.exit(total.failed > 0 || total.skipped > 0 || total.passed === 0 ? 1 : 0);
