;;; bench.el --- This package beside its peers, same server, same run  -*- lexical-binding: t; -*-

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Commentary:

;; `make bench' prints one table: how long Emacs is blocked by sending one
;; message, and how long a queue of messages takes, for this package, for
;; smtpmail and for msmtp.  The server is the bundled one, with STARTTLS and
;; AUTH, behind a relay that adds a round-trip time.

;;; Code:

(load (expand-file-name "../sink" (file-name-directory load-file-name)) nil t)
(require 'auth-source)
(require 'gnutls)
(require 'rs-smtpmail)
(require 'smtpmail)
(require 'nsm)
(require 'cl-lib)

(defvar bench-directory
  (file-name-as-directory (make-temp-file "rs-smtpmail-bench" t)))
(defvar bench-ca (expand-file-name "ca.pem" bench-directory))
;; That is in ~/.emacs.d, which smtpmail does not make.
(setq nsm-settings-file (expand-file-name "network-security.data" bench-directory))
(defvar bench-done 0 "Messages the module has reported on.")
(defvar bench-rows nil)

(defun bench-stop (server)
  "End SERVER."
  (process-send-eof server)
  (sink-wait "the server's end" (lambda () (not (process-live-p server)))))

(defun bench-message (octets)
  "Return a message with a body of OCTETS."
  (concat "From: me@example.org\nTo: you@example.com\nSubject: bench\n"
          mail-header-separator "\n"
          (let ((line (concat (make-string 71 ?x) "\n")))
            (apply #'concat (make-list (/ octets 72) line)))))

(defun bench-median (numbers)
  "Return the median of NUMBERS."
  (nth (/ (length numbers) 2) (sort (copy-sequence numbers) #'<)))

(defmacro bench-seconds (&rest body)
  "Return the seconds that BODY takes."
  `(let ((start (float-time)))
     ,@body
     (- (float-time) start)))

(defun bench-row (what ours smtpmail msmtp unit)
  "Add a row on WHAT: the numbers OURS, SMTPMAIL and MSMTP in UNIT."
  (let ((cell (lambda (number)
                (cond ((null number) "-")
                      ((integerp number) (format "%d %s" number unit))
                      (t (format (if (< number 10) "%.2f %s" "%.0f %s")
                                 number unit))))))
    (push (list what (funcall cell ours) (funcall cell smtpmail) (funcall cell msmtp)
                (if smtpmail (format "%.0f x" (/ (float smtpmail) ours)) "-"))
          bench-rows)
    (message "%s" (mapconcat #'identity (car bench-rows) " | "))))

(defun bench-with-server (rtt function)
  "Call FUNCTION with the options set for a server RTT milliseconds away."
  (let* ((statistics (expand-file-name "stats.json" bench-directory))
         (server (apply #'sink-start
                        `("--tls" "starttls" "--ca" ,bench-ca "--discard"
                          "--require-auth" "--stats" ,statistics
                          ,@(and (> rtt 0) `("--rtt-ms" ,(number-to-string rtt)))))))
    (unwind-protect
        (bench-with-options (sink-port server) function)
      (bench-stop server))))

(defun bench-with-options (port function)
  "Call FUNCTION with the options set for the server on PORT."
  (let ((smtpmail-smtp-server "localhost")
        (smtpmail-smtp-service port)
        (smtpmail-stream-type 'starttls)
        (auth-source-do-cache t)
        (gnutls-trustfiles (list bench-ca))
        (network-security-level 'low)
        (auth-sources (list (expand-file-name "authinfo" bench-directory)))
        (msmtprc (expand-file-name "msmtprc" bench-directory)))
    (with-temp-file (car auth-sources)
      (insert "machine localhost login user password \"pass word\"\n"))
    (with-temp-file msmtprc
      (insert (format "account default\nhost localhost\nport %d\nfrom me@example.org
tls on\ntls_starttls on\ntls_trust_file %s\nauth plain\nuser user
password \"pass word\"\n" port bench-ca)))
    (set-file-modes msmtprc #o600)
    (funcall function)))

(defun bench-send (function text)
  "Return the seconds for which FUNCTION, sending TEXT, blocks Emacs."
  (with-temp-buffer
    (insert text)
    (let ((inhibit-message t))
      (garbage-collect)
      (bench-seconds (funcall function)))))

(defun bench-msmtp (text)
  "Return the seconds that msmtp takes to send TEXT."
  (with-temp-buffer
    (insert (string-replace (concat mail-header-separator "\n") "\n" text))
    (bench-seconds
     (unless (eq 0 (call-process-region
                    (point-min) (point-max) "msmtp" t t nil "-C"
                    (expand-file-name "msmtprc" bench-directory) "you@example.com"))
       (error "Failed: msmtp: %s" (buffer-string))))))

(defun bench-wait (number)
  "Wait until NUMBER messages of the module have been sent."
  (sink-wait "delivery" (lambda () (>= bench-done number)))
  (setq bench-done 0))

(defun bench-blocking (octets rtt times peer-times)
  "Add rows for TIMES messages of OCTETS at RTT; PEER-TIMES for the peers."
  (bench-with-server
   rtt
   (lambda ()
     (let* ((text (bench-message octets))
            (ours (cl-loop repeat times
                           collect (prog1 (bench-send #'rs-smtpmail-send-it text)
                                     (bench-wait 1))))
            (theirs (cl-loop repeat peer-times
                             collect (bench-send #'smtpmail-send-it text)))
            (msmtp (cl-loop repeat peer-times collect (bench-msmtp text))))
       (bench-row (format "Emacs blocked, %s at %d ms round trip"
                          (file-size-human-readable octets 'si) rtt)
                  (* 1000 (bench-median ours))
                  (* 1000 (bench-median theirs))
                  (* 1000 (bench-median msmtp)) "ms")))))

(defun bench-queue (number peer-number rtt)
  "Add a row for a queue of NUMBER messages at RTT; PEER-NUMBER for the peers."
  (bench-with-server
   rtt
   (lambda ()
     (let* ((text (bench-message 3000))
            (smtpmail-queue-dir (expand-file-name "queue/" bench-directory))
            (fill (lambda (number)
                    (let ((smtpmail-queue-mail t)
                          (inhibit-message t))
                      (dotimes (_ number)
                        (bench-send #'smtpmail-send-it text)))))
            ours theirs msmtp)
       (funcall fill number)
       (setq ours (bench-seconds
                   (rs-smtpmail-send-queued-mail)
                   (bench-wait number)))
       (funcall fill peer-number)
       (setq theirs (bench-seconds
                     (let ((inhibit-message t)) (smtpmail-send-queued-mail))))
       (setq msmtp (bench-seconds
                    (dotimes (_ peer-number) (bench-msmtp text))))
       (bench-row (format "a queue of 3 kB messages at %d ms, per message" rtt)
                  (* 1000 (/ ours number))
                  (* 1000 (/ theirs peer-number))
                  (* 1000 (/ msmtp peer-number)) "ms")))))

;;;; Postfix and its own smtp-source; curl

(defun bench-peers-script (directory action)
  "Run tests/peers/postfix.sh on DIRECTORY with ACTION."
  (unless (eq 0 (call-process (expand-file-name "tests/peers/postfix.sh" sink-root)
                              nil nil nil directory action))
    (error "Failed: postfix.sh %s" action)))

(defun bench-postfix-facts (directory)
  "Return what DIRECTORY/env says, an alist of strings."
  (with-temp-buffer
    (insert-file-contents (expand-file-name "env" directory))
    (let (facts)
      (while (re-search-forward "^\\([A-Z_]+\\)='\\(.*\\)'$" nil t)
        (push (cons (match-string 1) (match-string 2)) facts))
      facts)))

(defun bench-flush (&rest arguments)
  "Run the flush benchmark with ARGUMENTS; return what it prints, a list.
That is seconds, KiB, and how often accepting a message waited for the disk."
  (with-temp-buffer
    (unless (eq 0 (apply #'call-process
                         (expand-file-name "target/release/examples/flush-bench"
                                           sink-root)
                         nil t nil (mapcar (apply-partially #'format "%s") arguments)))
      (error "Failed: flush-bench: %s" (buffer-string)))
    (mapcar #'string-to-number (split-string (buffer-string)))))

(defun bench-best (times function)
  "Return the least of what FUNCTION returns in TIMES calls."
  (apply #'min (cl-loop repeat times collect (funcall function))))

(defun bench-throughput (number)
  "Add a row for NUMBER messages to Postfix over one session."
  (let ((directory (make-temp-file "rs-smtpmail-postfix" t)))
    (unwind-protect
        (let ((port (progn
                      (bench-peers-script directory "start")
                      (string-to-number
                       (cdr (assoc "PLAIN_PORT" (bench-postfix-facts directory)))))))
          (bench-other-row
           (format "%d messages of 3 kB to Postfix, one session" number)
           (bench-best 3 (lambda () (car (bench-flush port number 3000))))
           "smtp-source"
           (bench-best 3 (lambda ()
                           (bench-seconds
                            (call-process "smtp-source" nil nil nil
                                          "-s" "1" "-m" (number-to-string number)
                                          "-l" "3000" "-f" "me@example.org"
                                          "-t" "you@example.org"
                                          (format "inet:127.0.0.1:%d" port)))))))
      (bench-peers-script directory "stop")
      (delete-directory directory t))))

(defun bench-far-flush ()
  "Add rows for 100 messages over one session, 50 ms away.
By what the server offers; the bounds are what the round trips cost."
  (pcase-dolist (`(,name . ,arguments)
                 '(("CHUNKING and PIPELINING")
                   ("PIPELINING alone" "--no-ext" "CHUNKING")
                   ("neither" "--no-ext" "CHUNKING" "--no-ext" "PIPELINING")))
    (let* ((statistics (expand-file-name "turns.json" bench-directory))
           (server (apply #'sink-start "--tls" "implicit" "--ca" bench-ca "--discard"
                          "--require-auth" "--rtt-ms" "50" "--stats" statistics
                          arguments))
           (seconds (car (bench-flush (sink-port server) 100 3000 bench-ca))))
      (bench-stop server)
      (push (list (format "100 messages at 50 ms with %s" name)
                  (format "%.2f s" seconds) "-" "-"
                  (format "%d turns" (bench-turns statistics)))
            bench-rows))))

(defun bench-turns (statistics)
  "Return the client's turns, from the file STATISTICS."
  (with-temp-buffer
    (insert-file-contents statistics)
    (gethash "turns" (json-parse-buffer))))

(defun bench-large-spool ()
  "Add rows for a spool of 10,000 messages beside one of 100."
  (let* ((server (sink-start "--discard"))
         (per-message (lambda (number)
                        (/ (* 1000 (car (bench-flush (sink-port server) number 3000)))
                           number)))
         (few (bench-best 3 (lambda () (funcall per-message 100))))
         (many (funcall per-message 10000)))
    (push (list "waits for the disk to accept a message"
                (format "%d" (nth 2 (bench-flush (sink-port server) 10 3000)))
                "-" "-" "fsync of its file, and of the directory")
          bench-rows)
    (bench-stop server)
    (push (list "a flush of 10,000, per message" (format "%.2f ms" many) "-" "-"
                (format "of 100: %.2f ms" few))
          bench-rows))
  (push (list "listing a spool of 10,000"
              (with-temp-buffer
                (call-process (expand-file-name invocation-name invocation-directory)
                              nil t nil "-Q" "--batch"
                              "-L" (expand-file-name "lisp" sink-root)
                              "--eval" (prin1-to-string (bench-listing-form)))
                (format "%s ms" (buffer-string)))
              "-" "-" "-")
        bench-rows))

(defun bench-listing-form ()
  "Return a form that prints the milliseconds of listing a spool of 10,000."
  `(progn
     (require 'rs-smtpmail)
     (setq rs-smtpmail-spool-directory
           ,(expand-file-name "large-spool" bench-directory))
     (dotimes (number 10000)
       (rs-smtp-send (format "Subject: %d\n\nHello\n" number) "me@example.org"
                     '("you@example.org") '(:host "localhost" :port 1)
                     nil (list :not-before (time-add nil 86400))))
     (princ (format "%.0f"
                    (* 1000 (apply #'min
                                   (mapcar (lambda (_)
                                             (car (benchmark-run 1 (rs-smtp-queue-list))))
                                           (make-list 5 nil))))))))

(defun bench-one-cold ()
  "Add a row for the turns of one message on a new session."
  (cl-flet ((turns (function)
              (let ((statistics (expand-file-name "turns.json" bench-directory))
                    (server nil))
                (setq server (sink-start "--tls" "starttls" "--ca" bench-ca "--discard"
                                         "--require-auth" "--rtt-ms" "20"
                                         "--stats" statistics))
                (unwind-protect
                    (bench-with-options (sink-port server) function)
                  (bench-stop server))
                (bench-turns statistics))))
    (let ((text (bench-message 3000)))
      (push (list "turns for one message, STARTTLS and AUTH, with QUIT"
                  (number-to-string
                   (turns (lambda ()
                            (let ((rs-smtpmail-idle-timeout 0))
                              (bench-send #'rs-smtpmail-send-it text)
                              (bench-wait 1)))))
                  (number-to-string
                   (turns (lambda () (bench-send #'smtpmail-send-it text))))
                  (number-to-string (turns (lambda () (bench-msmtp text))))
                  "-")
            bench-rows))))

(defun bench-curl ()
  "Add rows for 25 MB over TLS, and the memory that takes."
  (let* ((server (sink-start "--tls" "implicit" "--ca" bench-ca "--discard"
                             "--require-auth"))
         (file (expand-file-name "large.eml" bench-directory))
         (memory 0))
    (unwind-protect
        (progn
          (with-temp-file file
            (insert "Subject: bench\r\n\r\n")
            (dotimes (_ (/ 25000000 73))
              (insert (make-string 71 ?x) "\r\n")))
          (bench-other-row
           "25 MB by implicit TLS"
           (bench-best 5 (lambda ()
                           (pcase-let ((`(,seconds ,kib)
                                        (bench-flush (sink-port server) 1 25000000
                                                     bench-ca)))
                             (setq memory (max memory kib))
                             seconds)))
           "curl"
           (bench-best 5 (lambda ()
                           (bench-seconds
                            (call-process
                             "curl" nil nil nil "-s" "--cacert" bench-ca
                             "--url" (format "smtps://localhost:%d" (sink-port server))
                             "--user" "user:pass word"
                             "--mail-from" "me@example.org"
                             "--mail-rcpt" "you@example.org" "-T" file)))))
          (push (list "memory growth while sending it"
                      (format "%.1f MiB" (/ memory 1024.0)) "-" "-" "-")
                bench-rows))
      (bench-stop server))))

(defun bench-other-row (what ours name theirs)
  "Add a row on WHAT: the seconds OURS beside THEIRS, by the program NAME."
  (push (list what (format "%.3f s" ours) "-" "-"
              (format "%s %.3f s, %.1f x" name theirs (/ theirs ours)))
        bench-rows)
  (message "%s" (mapconcat #'identity (car bench-rows) " | ")))

(let ((rs-smtpmail-synchronous nil)
      (rs-smtpmail-spool-directory (expand-file-name "spool" bench-directory))
      (rs-smtpmail-sent-functions (list (lambda (_) (setq bench-done (1+ bench-done)))))
      (rs-smtpmail-failed-functions
       (list (lambda (entry) (error "Not sent: %s" (plist-get entry :error)))))
      (user-mail-address "me@example.org"))
  (unwind-protect
      (progn
        (bench-blocking 3000 0 31 7)
        (bench-blocking 3000 50 15 5)
        (bench-blocking 1000000 0 9 3)
        (bench-blocking 25000000 0 9 2)
        (bench-queue 100 10 50)
        (bench-throughput 500)
        (bench-curl)
        (bench-far-flush)
        (bench-one-cold)
        (bench-large-spool)
        (message "\n| %-50s | %10s | %10s | %10s | %8s |"
                 "what" "this" "smtpmail" "msmtp" "ratio")
        (message "|%s|" (mapconcat (lambda (width) (make-string (+ width 2) ?-))
                                   '(50 10 10 10 8) "+"))
        (dolist (row (nreverse bench-rows))
          (message "%s" (apply #'format "| %-50s | %10s | %10s | %10s | %8s |" row))))
    (delete-directory bench-directory t)))

;;; bench.el ends here
