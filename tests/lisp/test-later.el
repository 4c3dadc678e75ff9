;;; test-later.el --- Mail kept back, taken back, and sent later  -*- lexical-binding: t; -*-

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Code:

(require 'helper)
(require 'test-processes)
(require 'rs-smtpmail-later)
(require 'rs-smtpmail-time)

;;;; Times

(defconst test-times
  '(("now" . "2026-11-23 14:30:00")
    ("5h" . "2026-11-23 19:30:00")
    ("+2h" . "2026-11-23 16:30:00")
    ("90 min" . "2026-11-23 16:00:00")
    ("1h30m" . "2026-11-23 16:00:00")
    ("2 hours and 5 minutes" . "2026-11-23 16:35:00")
    ("3d" . "2026-11-26 14:30:00")
    ("in 3 days" . "2026-11-26 14:30:00")
    ("1d 12h" . "2026-11-25 02:30:00")
    ("2w" . "2026-12-07 14:30:00")
    ("2m" . "2026-11-23 14:32:00")
    ("2M" . "2027-01-23 14:30:00")
    ("3 months, 7 days" . "2027-03-02 14:30:00")
    ("1y" . "2027-11-23 14:30:00")
    ;; The clocks have changed by then.
    ("140d" . "2027-04-12 14:30:00")
    ("16:30" . "2026-11-23 16:30:00")
    ("9:00" . "2026-11-24 09:00:00")
    ("4pm" . "2026-11-23 16:00:00")
    ("at 4:15 PM" . "2026-11-23 16:15:00")
    ("12am" . "2026-11-24 00:00:00")
    ("tomorrow" . "2026-11-24 08:00:00")
    ("Tomorrow 9:00" . "2026-11-24 09:00:00")
    ("today 18:00" . "2026-11-23 18:00:00")
    ("today 8:00" . "2026-11-23 08:00:00")
    ("mon" . "2026-11-30 08:00:00")
    ("Monday 16:00" . "2026-11-23 16:00:00")
    ("on friday at 8am" . "2026-11-27 08:00:00")
    ("2026-12-01" . "2026-12-01 08:00:00")
    ("2026-12-01 08:00" . "2026-12-01 08:00:00")
    ("2027-07-01T08:00:00Z" . "2027-07-01 10:00:00")
    ("2026-12-01T08:00:00+05:30" . "2026-12-01 03:30:00")
    ("Tue, 01 Dec 2026 08:00:00 -0500 (EST)" . "2026-12-01 14:00:00")
    ("1 Dec 2026 08:00 GMT" . "2026-12-01 09:00:00")
    ("1 Jul 2027 08:00" . "2027-07-01 08:00:00")
    ("2026-02-30") ("2026-13-01") ("32 Dec 2026 08:00") ("1 Foo 2026 08:00")
    ("25:00") ("8:61") ("13pm") ("0am") ("soon") ("") ("5") ("5 parsecs") ("5h foo")
    ("today") ("moo 8:00") ("monx") ("next year") ("tomorrow 9:00 +0100")
    ("2026-12-01 08:00 or later"))
  "Texts, and the times that they mean on 2026-11-23, a Monday, at 14:30 in Berlin.")

(ert-deftest test-later-times ()
  (let ((zone (getenv "TZ")))
    (unwind-protect
        (progn
          (set-time-zone-rule "CET-1CEST,M3.5.0,M10.5.0/3")
          (let ((now (encode-time '(0 30 14 23 11 2026 nil -1 nil))))
            (pcase-dolist (`(,text . ,expected) test-times)
              (ert-info (text :prefix "Text: ")
                (if expected
                    (should (equal expected
                                   (format-time-string
                                    "%F %T" (rs-smtpmail--parse-time text now))))
                  (should-error (rs-smtpmail--parse-time text now)
                                :type 'user-error))))))
      (set-time-zone-rule zone))))

;;;; Mails that wait

(defmacro test-later (arguments &rest body)
  "Run BODY, not waiting for the server, which is started with ARGUMENTS."
  (declare (indent 1))
  `(test-with-server ,arguments
     (let ((rs-smtpmail-synchronous nil)
           (rs-smtpmail--recallable nil))
       ,@body)))

(defun test-only-entry ()
  "Return the spool's only entry."
  (let ((entries (rs-smtp-queue-list)))
    (should (= 1 (length entries)))
    (car entries)))

(defun test-wait-time ()
  "Return the seconds until the spool's only entry is sent."
  (- (plist-get (test-only-entry) :not-before) (float-time)))

(defmacro test-composing (mode header &rest body)
  "Run BODY in a buffer in MODE with a mail of HEADER, ready to be sent."
  (declare (indent 2))
  `(save-window-excursion
     (let ((buffer (generate-new-buffer "*unsent mail*"))
           (send-mail-function #'rs-smtpmail-send-it)
           (message-send-mail-function #'rs-smtpmail-send-it)
           (message-kill-buffer-on-exit nil))
       (unwind-protect
           (progn
             (switch-to-buffer buffer)
             (funcall ,mode)
             (erase-buffer)
             (test-insert-mail ,header "Hello\n")
             ,@body)
         (dolist (buffer (buffer-list))
           (when (string-match-p "\\`\\*\\(?:un\\)?sent " (buffer-name buffer))
             (with-current-buffer buffer
               (set-buffer-modified-p nil)
               (kill-buffer))))))))

(defun test-send-buffer (mode)
  "Send the mail in this buffer, in MODE, by the command of that."
  (call-interactively (if (eq mode 'message-mode)
                          #'message-send-and-exit
                        #'mail-send-and-exit)))

(ert-deftest test-later-undo-delay-ends ()
  (test-later nil
    (let ((rs-smtpmail-undo-delay 0.3))
      (test-send #'rs-smtpmail-send-it (test-header))
      (should (equal '(scheduled) (test-states)))
      (should (assoc (plist-get (test-only-entry) :id) rs-smtpmail--recallable))
      (test-received 1)
      (sink-wait "the outcome" (lambda () (null rs-smtpmail--recallable))))))

(ert-deftest test-later-undo-delay-is-not-for-those-who-wait ()
  (test-with-server nil
    (let ((rs-smtpmail-undo-delay 1000))
      (let ((noninteractive t))
        (test-send #'rs-smtpmail-send-it (test-header)))
      (test-send-synchronously (test-header))
      (should (= 2 (test-received-count))))))

(ert-deftest test-later-undo-delay-may-be-local ()
  (dolist (mode '(message-mode mail-mode))
    (test-later nil
      (test-composing mode (test-header)
        (setq-local rs-smtpmail-undo-delay 1000)
        (test-send-buffer mode)
        (with-current-buffer buffer
          (should (= 1000 rs-smtpmail-undo-delay))))
      (should (< 900 (test-wait-time))))))

;;;; Taking back

(defconst test-undo-fields
  '("Bcc: Jörg <secret@example.com>" "Subject: Grüße")
  "Fields that must come back.")

(ert-deftest test-later-undo ()
  "Whether the buffer is still there or not, the mail is back as it was."
  (dolist (mode '(message-mode mail-mode))
    (dolist (defer '(nil t))
      (dolist (kill '(nil t))
        (test-later nil
          (let ((rs-smtpmail-undo-delay 1000)
                (rs-smtpmail-defer-fcc defer)
                (folder (test-file "folder")))
            (with-temp-file folder)
            (test-composing mode (apply #'test-header (concat "Fcc: " folder)
                                        test-undo-fields)
              (let ((text (buffer-string)))
                (test-send-buffer mode)
                (should (equal '(scheduled) (test-states)))
                (when kill
                  (kill-buffer buffer))
                (switch-to-buffer "*scratch*")
                (call-interactively #'rs-smtpmail-undo-send)
                (should-not (rs-smtp-queue-list))
                (should (derived-mode-p mode))
                (should (eq (not kill) (eq buffer (current-buffer))))
                (should (buffer-modified-p))
                (should (equal (sort (split-string text "\n") #'string<)
                               (sort (split-string (buffer-string) "\n") #'string<)))
                (should (string-match-p "^--text follows this line--\nHello\n\\'"
                                        (buffer-string)))
                (unless defer
                  (should (string-search (concat "a copy has been filed in " folder)
                                         (or (current-message)
                                             (with-current-buffer "*Messages*"
                                               (buffer-string))))))
                ;; It can be sent again.
                (let ((rs-smtpmail-undo-delay 0))
                  (goto-char (point-min))
                  (search-forward "Hello")
                  (insert " again")
                  (test-send-buffer mode)))
              (should (string-search "Hello again" (plist-get (test-received 1) :bytes)))
              (test-wait-for-state)
              (should (= 1 (test-received-count))))))))))

(ert-deftest test-later-undo-gives-gcc-back ()
  "Gnus takes it out when it files the mail."
  (test-later nil
    (let ((rs-smtpmail-undo-delay 1000))
      (test-composing #'message-mode (test-header "Gcc: nnfolder+archive:sent")
        (add-hook 'message-sent-hook
                  (lambda ()
                    (goto-char (point-min))
                    (re-search-forward "^Gcc.*\n")
                    (replace-match ""))
                  nil t)
        (test-send-buffer 'message-mode)
        (should-not (string-search "Gcc" (with-current-buffer buffer (buffer-string))))
        (rs-smtpmail-undo-send)
        (should (string-match-p "^Gcc: nnfolder\\+archive:sent\n" (buffer-string)))))))

(ert-deftest test-later-undo-the-last-one ()
  (test-later nil
    (let ((rs-smtpmail-undo-delay 1000))
      (dolist (to '("a@x.org" "b@x.org"))
        (test-composing #'message-mode (test-header (concat "To: " to)
                                                    (format "Message-ID: <%s>" to))
          (test-send-buffer 'message-mode)))
      (save-window-excursion
        (rs-smtpmail-undo-send)
        (should (string-match-p "^To: b@x.org$" (buffer-string)))
        (should (equal "a@x.org"
                       (plist-get (car (plist-get (test-only-entry) :recipients))
                                  :address)))
        ;; One chosen from the spool.
        (let ((current-prefix-arg '(4)))
          (cl-letf (((symbol-function 'completing-read)
                     (lambda (_prompt choices &rest _) (caar choices))))
            (call-interactively #'rs-smtpmail-undo-send)))
        (should (string-match-p "^To: a@x.org$" (buffer-string)))
        (should-not (rs-smtp-queue-list))))))

(ert-deftest test-later-undo-too-late ()
  (test-later (test-script '(:stage "final" :hold "gate"))
    (let ((rs-smtpmail-undo-delay 0.01))
      (test-send #'rs-smtpmail-send-it (test-header))
      (test-wait-for-state 'sending)
      (should (string-search "too late" (test-error #'rs-smtpmail-undo-send)))
      (process-send-string test-server "release gate\n")
      (test-wait-for-state)
      (test-received 1)
      (should-error (rs-smtpmail-undo-send) :type 'user-error)
      (rs-smtpmail--wake)
      (rs-smtpmail--handle-events)
      (should-error (rs-smtpmail-undo-send) :type 'user-error))))

(ert-deftest test-later-undo-is-offered-for-the-next-command ()
  (test-later nil
    (let ((rs-smtpmail-undo-delay 1000))
      (test-composing #'mail-mode (test-header)
        (test-send-buffer 'mail-mode)
        (rs-smtpmail--offer-undo (plist-get (test-only-entry) :id) nil 1000)
        (let ((command (command-remapping 'undo)))
          (should command)
          (let ((this-command command))
            (run-hooks 'pre-command-hook))
          (should-not (command-remapping 'undo))
          (call-interactively command))
        (should (string-search "Hello" (buffer-string)))
        (should-not (rs-smtp-queue-list))))))

(ert-deftest test-later-undo-delay-survives-a-kill ()
  (test-with-server nil
    (test-with-own-spool
      (test-finish
       (test-emacs `(progn (require 'rs-smtpmail)
                           (setq rs-smtpmail-synchronous nil
                                 rs-smtpmail-undo-delay 1)
                           ,test-send-form
                           (signal-process (emacs-pid) 'SIGKILL))))
      (should (= 0 (test-received-count)))
      (should (= 1 (test-stored-entries)))
      (test-emacs-output
       '(progn (require 'rs-smtpmail)
               (rs-smtpmail-resume)
               (while (rs-smtp-queue-list) (accept-process-output nil 0.05))))
      (should (= 1 (test-received-count))))))

(ert-deftest test-later-leaving ()
  "What is kept back for a moment is in flight; what waits for a time is not."
  (test-later nil
    (let ((rs-smtpmail-undo-delay 1000)
          question)
      (cl-flet ((test-leave (choice)
                  (setq question nil)
                  (let ((noninteractive nil))
                    (cl-letf (((symbol-function 'read-multiple-choice)
                               (lambda (prompt choices)
                                 (setq question prompt)
                                 (assq choice choices))))
                      (run-hook-with-args-until-failure
                       'kill-emacs-query-functions)))))
        (test-send #'rs-smtpmail-send-it (test-header "X-Rs-Smtpmail-Send-At: 1h"))
        (should (test-leave ?c))
        (should-not question)
        (test-send #'rs-smtpmail-send-it (test-header "Subject: Kept"))
        (should-not (test-leave ?c))
        (should (string-search "1 message is" question))
        (should (test-leave ?l))
        (should (= 0 (test-received-count)))
        (should (test-leave ?w))
        (should (string-search "Subject: Kept" (plist-get (test-received 1) :bytes)))
        (should (equal '(scheduled) (test-states)))))))

(ert-deftest test-later-undo-what-an-earlier-emacs-left ()
  "Nothing is known of it but what the spool says."
  (test-later nil
    (let ((rs-smtpmail-defer-fcc t)
          (folder (test-file "folder")))
      (test-composing #'message-mode (apply #'test-header (concat "Fcc: " folder)
                                            test-undo-fields)
        (rs-smtpmail-send-at "2030-05-06 07:08")
        (setq rs-smtpmail--recallable nil)
        (should-error (rs-smtpmail-undo-send) :type 'user-error)
        (kill-buffer buffer)
        (rs-smtpmail-undo-send (plist-get (test-only-entry) :id))
        (should-not (memq 'scheduled (test-states)))
        (dolist (line (list "Bcc: secret@example.com" "Subject: Grüße"
                            (concat "Fcc: " (abbreviate-file-name folder))
                            "X-Rs-Smtpmail-Send-At: 2030-05-06 07:08" "Hello"))
          (should (member line (split-string (buffer-string) "\n"))))))))

;;;; Sending at a time

(ert-deftest test-later-send-at ()
  (dolist (mode '(message-mode mail-mode))
    (dolist (by-command '(nil t))
      (test-later nil
        (test-composing mode (apply #'test-header
                                    (if by-command
                                        test-undo-fields
                                      (cons "X-Rs-Smtpmail-Send-At: 2h"
                                            test-undo-fields)))
          (if by-command
              (rs-smtpmail-send-at "2h")
            (test-send-buffer mode))
          (should (equal '(scheduled) (test-states)))
          (should (< 7000 (test-wait-time) 7201))
          (should-not (buffer-modified-p buffer))
          (should-not (string-search
                       "Send-At" (rs-smtp-queue-message
                                  (plist-get (test-only-entry) :id))))
          ;; Taken back, it says when it was to be sent.
          (rs-smtpmail-undo-send)
          (should (= 2 (length (split-string (buffer-string)
                                             "^X-Rs-Smtpmail-Send-At: "))))
          (should-not (rs-smtp-queue-list))
          (test-send-buffer mode)
          (should (< 7000 (test-wait-time) 7261))
          (should (= 0 (test-received-count))))))))

(ert-deftest test-later-options-of-the-compose-buffer ()
  "Message does not take them to the buffer that it sends from."
  (dolist (mode '(message-mode mail-mode))
    (test-later nil
      (test-composing mode (test-header)
        (setq-local rs-smtpmail-dsn '(:ret hdrs))
        (test-send-buffer mode))
      (should (equal '("RET=HDRS")
                     (seq-filter (lambda (parameter) (string-prefix-p "RET" parameter))
                                 (plist-get (test-received 1) :parameters)))))))

(ert-deftest test-later-send-at-asks-org-if-it-is-there ()
  (test-later nil
    (let ((time (time-add nil 5000)))
      (cl-letf (((symbol-function 'featurep) (lambda (&rest _) t))
                ((symbol-function 'org-read-date)
                 (lambda (with-time to-time &rest _)
                   (should with-time)
                   (should to-time)
                   time)))
        (test-composing #'message-mode (test-header)
          (call-interactively #'rs-smtpmail-send-at)))
      (should (< 4900 (test-wait-time) 5000)))))

(ert-deftest test-later-send-at-is-removed-from-copies ()
  (dolist (mode '(message-mode mail-mode))
    (test-later nil
      (let ((folder (test-file "folder")))
        (with-temp-file folder)
        (test-send #'rs-smtpmail-send-it
                   (test-header "X-Rs-Smtpmail-Send-At: 2h" (concat "Fcc: " folder))
                   nil mode)
        (should (string-search "Subject: Test" (test-bytes folder)))
        (should-not (string-search "Send-At" (test-bytes folder)))))))

(ert-deftest test-later-send-at-past-means-now ()
  (test-later nil
    (test-send #'rs-smtpmail-send-it
               (test-header "X-Rs-Smtpmail-Send-At: 2001-01-01 08:00"))
    (let ((bytes (plist-get (test-received 1) :bytes)))
      (should-not (string-search "Send-At" bytes))
      (should (string-search "Date: Sat, 01 Nov 2025" bytes)))))

(ert-deftest test-later-send-at-unreadable ()
  (dolist (mode '(message-mode mail-mode))
    (test-later nil
      (with-temp-buffer
        (funcall mode)
        (erase-buffer)
        (test-insert-mail (test-header "X-Rs-Smtpmail-Send-At: soon") "Hello\n")
        (let ((message-send-mail-function #'rs-smtpmail-send-it)
              (text (buffer-string)))
          (should (string-match-p
                   "Send-At: There is no time in \"soon\""
                   (test-error (if (eq mode 'message-mode)
                                   #'message-send
                                 #'rs-smtpmail-send-it))))
          ;; Message has sorted the header by then.
          (should (equal (sort (split-string text "\n") #'string<)
                         (sort (split-string (buffer-substring-no-properties
                                              (point-min) (point-max))
                                             "\n")
                               #'string<)))))
      (should-not (rs-smtp-queue-list)))))

(ert-deftest test-later-send-at-does-not-wait ()
  "Not even in a batch Emacs, which leaves the mail to another one."
  (test-with-server nil
    (test-with-own-spool
      (test-emacs-output
       '(progn (require 'rs-smtpmail)
               (with-temp-buffer
                 (insert "From: me@example.org\nTo: you@example.com\n"
                         "X-Rs-Smtpmail-Send-At: "
                         (format-time-string "%FT%T%z" (time-add nil 2))
                         "\n" mail-header-separator "\nHello\n")
                 (rs-smtpmail-send-it))))
      (should (= 0 (test-received-count)))
      (should (= 1 (test-stored-entries)))
      (test-emacs-output
       '(progn (require 'rs-smtpmail)
               (rs-smtpmail-resume)
               (while (rs-smtp-queue-list) (accept-process-output nil 0.05))))
      (should (= 1 (test-received-count))))))

(ert-deftest test-later-send-at-and-the-queue ()
  "The queue knows of no times, so that such mail goes to the spool."
  (dolist (mode '(message-mode mail-mode))
    (test-later nil
      (let ((smtpmail-queue-mail t))
        (test-send #'rs-smtpmail-send-it (test-header "X-Rs-Smtpmail-Send-At: 2h")
                   nil mode)
        (should (equal '(scheduled) (test-states)))
        (should-not (file-exists-p smtpmail-queue-dir))
        (test-send #'rs-smtpmail-send-it
                   (test-header "X-Rs-Smtpmail-Send-At: 2001-01-01") nil mode)
        (should (equal '(scheduled) (test-states)))
        (let ((files (directory-files smtpmail-queue-dir t "[0-9]\\'")))
          (should (= 1 (length files)))
          (should-not (string-search "Send-At" (test-bytes (car files)))))))))

(ert-deftest test-later-send-at-date ()
  (dolist (choice '(sending composing))
    (test-later nil
      (let ((rs-smtpmail-send-at-date choice))
        (test-send #'rs-smtpmail-send-it (test-header "X-Rs-Smtpmail-Send-At: 2h"))
        (rs-smtp-queue-schedule (plist-get (test-only-entry) :id) nil)
        (should (eq (eq choice 'composing)
                    (and (string-search "Date: Sat, 01 Nov 2025"
                                        (plist-get (test-received 1) :bytes))
                         t)))))))

(ert-deftest test-later-send-at-refuses-what-is-not-ours ()
  (test-later nil
    (let ((sent nil))
      (test-composing #'message-mode (test-header)
        (let ((message-send-mail-function #'message-send-mail-with-sendmail))
          (should-error (rs-smtpmail-send-at "2h") :type 'user-error))
        (let ((message-send-mail-function #'smtpmail-send-it)
              (rs-smtpmail-mode nil))
          (should-error (rs-smtpmail-send-at "2h") :type 'user-error))
        (should-error (rs-smtpmail-send-at "soon") :type 'user-error)
        ;; One that we can't know.
        (let* ((message-send-mail-function (lambda () (setq sent t)))
               (rs-smtpmail-mode t)
               (warnings (test-with-warnings (rs-smtpmail-send-at "2h"))))
          (should sent)
          (should (string-search "at once" (car warnings)))))
      (with-temp-buffer
        (should-error (rs-smtpmail-send-at "2h") :type 'user-error))
      (should-not (rs-smtp-queue-list)))))

;;;; Pauses between tries

(ert-deftest test-later-retry-options ()
  (test-later (test-script '(:stage "mail" :times "once" :reply "451 Later"))
    (let ((rs-smtpmail-retry-first-pause 0.1))
      (test-with-warnings
        (test-send #'rs-smtpmail-send-it (test-header))
        (test-received 1)
        (test-wait-for-state))))
  (test-later (test-script '(:stage "mail" :reply "451 Later"))
    (let ((rs-smtpmail-retry-first-pause 5000)
          (rs-smtpmail-retry-longest-pause 1000)
          (rs-smtpmail-retry-give-up 500000))
      (test-with-warnings
        (test-send #'rs-smtpmail-send-it (test-header))
        (rs-smtpmail--wait (list (plist-get (test-only-entry) :id)))
        (should (< 900 (- (plist-get (test-only-entry) :next-try) (float-time)) 1300))
        (setq rs-smtpmail-retry-give-up 0)
        (rs-smtpmail-retry (plist-get (test-only-entry) :id))
        (test-wait-for-state 'failed)))))

(provide 'test-later)

;;; test-later.el ends here
