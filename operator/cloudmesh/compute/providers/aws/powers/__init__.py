"""The optional powers of EC2, a module each; `AwsProvider` is the sum of them."""
